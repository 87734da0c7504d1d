/* Links, addresses and routes, as rtnetlink batches. Knows the order the kernel needs and nothing of containers. */
#include "netlink.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static const uint8_t no_address[4];

static bool is_zero(const uint8_t *bytes, size_t size)
{
	while (size)
		if (bytes[--size])
			return false;
	return true;
}

/* Names are given as C strings or as arrays of 16; the kernel takes 1 to 15 bytes. */
static int check_name(const char *name, struct pn_error *reterr)
{
	size_t length = strnlen(name, IFNAMSIZ);

	if (length == 0 || length == IFNAMSIZ)
		return pn_fail(reterr, EINVAL, PN_STEP_LINK, "interface name must have 1 to 15 bytes");
	return 0;
}

/* The interface ioctl works on any socket, takes no lock, and is a tenth of an RTM_GETLINK. */
PN_EXPORT int pn_link_index(int nl, const char *name, struct pn_error *reterr)
{
	struct ifreq request = { 0 };
	int ret = check_name(name, reterr);

	if (ret < 0)
		return ret;
	memcpy(request.ifr_name, name, strlen(name));
	if (ioctl(nl, SIOCGIFINDEX, &request) < 0)
		return pn_fail(reterr, errno, PN_STEP_LINK, name);
	return request.ifr_ifindex;
}

/* ---- messages ---- */

/* A request about an existing link: by index, or by name where index is 0. change: IFF_UP or 0. */
static void begin_link(struct pn_nl_batch *batch, uint32_t step, uint16_t type, int index, uint32_t change, bool up)
{
	struct ifinfomsg link = {
		.ifi_index = index,
		.ifi_flags = up ? change : 0,
		.ifi_change = change,
	};

	pn_nl_begin(batch, step, type, 0, &link, sizeof(link));
	if (index == 0)
		pn_nl_put_string(batch, IFLA_IFNAME, batch->subject);
}

static void put_no_link_local(struct pn_nl_batch *batch)
{
	uint32_t spec = pn_nl_nest(batch, IFLA_AF_SPEC);
	uint32_t inet6 = pn_nl_nest(batch, AF_INET6);

	pn_nl_put_u8(batch, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	pn_nl_nest_end(batch, inet6);
	pn_nl_nest_end(batch, spec);
}

static void add_address(struct pn_nl_batch *batch, int index, const uint8_t *address, uint32_t prefix,
			const uint8_t *broadcast)
{
	const struct ifaddrmsg fixed = {
		.ifa_family = AF_INET,
		.ifa_prefixlen = (uint8_t)prefix,
		.ifa_scope = RT_SCOPE_UNIVERSE,
		.ifa_index = (uint32_t)index,
	};

	pn_nl_begin(batch, PN_STEP_ADDRESS, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed, sizeof(fixed));
	pn_nl_put(batch, IFA_LOCAL, address, 4);
	pn_nl_put(batch, IFA_ADDRESS, address, 4);
	if (!is_zero(broadcast, 4))
		pn_nl_put(batch, IFA_BROADCAST, broadcast, 4);
}

static void add_route(struct pn_nl_batch *batch, int index, const uint8_t *destination, uint32_t prefix,
		      const uint8_t *gateway)
{
	bool on_link = is_zero(gateway, 4);
	const struct rtmsg fixed = {
		.rtm_family = AF_INET,
		.rtm_dst_len = (uint8_t)prefix,
		.rtm_table = RT_TABLE_MAIN,
		.rtm_protocol = RTPROT_BOOT,
		.rtm_scope = on_link ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
		.rtm_type = RTN_UNICAST,
	};

	pn_nl_begin(batch, PN_STEP_ROUTE, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &fixed, sizeof(fixed));
	if (prefix)
		pn_nl_put(batch, RTA_DST, destination, 4);
	if (!on_link)
		pn_nl_put(batch, RTA_GATEWAY, gateway, 4);
	pn_nl_put_u32(batch, RTA_OIF, (uint32_t)index);
}

/* ---- veth ---- */

/* One queue each: the default is one per CPU, allocated and never used. */
static void put_veth_end(struct pn_nl_batch *batch, const char *name, uint32_t mtu)
{
	pn_nl_put_string(batch, IFLA_IFNAME, name);
	if (mtu)
		pn_nl_put_u32(batch, IFLA_MTU, mtu);
	pn_nl_put_u32(batch, IFLA_NUM_TX_QUEUES, 1);
	pn_nl_put_u32(batch, IFLA_NUM_RX_QUEUES, 1);
}

static void put_peer(struct pn_nl_batch *batch, const struct pn_veth *veth)
{
	const struct ifinfomsg peer = { .ifi_family = AF_UNSPEC };
	uint32_t info = pn_nl_nest(batch, IFLA_LINKINFO);
	uint32_t data, end;

	pn_nl_put_string(batch, IFLA_INFO_KIND, "veth");
	data = pn_nl_nest(batch, IFLA_INFO_DATA);
	end = pn_nl_nest(batch, VETH_INFO_PEER);
	pn_nl_put_raw(batch, &peer, sizeof(peer));
	put_veth_end(batch, veth->peer_name, veth->mtu);
	if (!is_zero(veth->peer_mac, sizeof(veth->peer_mac)))
		pn_nl_put(batch, IFLA_ADDRESS, veth->peer_mac, sizeof(veth->peer_mac));
	if (veth->peer_netns >= 0)
		pn_nl_put_u32(batch, IFLA_NET_NS_FD, (uint32_t)veth->peer_netns);
	pn_nl_nest_end(batch, end);
	pn_nl_nest_end(batch, data);
	pn_nl_nest_end(batch, info);
}

static int create_pair(int nl, const struct pn_veth *veth, struct pn_error *reterr)
{
	const struct ifinfomsg host = { .ifi_flags = veth->up ? IFF_UP : 0, .ifi_change = veth->up ? IFF_UP : 0 };
	struct pn_nl_batch batch;

	pn_nl_init(&batch, veth->host_name);
	pn_nl_begin(&batch, PN_STEP_VETH, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &host, sizeof(host));
	put_veth_end(&batch, veth->host_name, veth->mtu);
	if (veth->master)
		pn_nl_put_u32(&batch, IFLA_MASTER, veth->master);
	put_peer(&batch, veth);
	return pn_nl_transact(nl, &batch, reterr);
}

/* The peer is down, so the host's end has no carrier yet and no link-local address to take back. */
static int set_port_flags(int nl, const struct pn_veth *veth, struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	uint32_t info, data;

	pn_nl_init(&batch, veth->host_name);
	begin_link(&batch, PN_STEP_VETH, RTM_NEWLINK, 0, 0, false);
	if (veth->port_flags & PN_PORT_NO_IPV6)
		put_no_link_local(&batch);
	if (veth->port_flags & (PN_PORT_HAIRPIN | PN_PORT_ISOLATED)) {
		info = pn_nl_nest(&batch, IFLA_LINKINFO);
		pn_nl_put_string(&batch, IFLA_INFO_SLAVE_KIND, "bridge");
		data = pn_nl_nest(&batch, IFLA_INFO_SLAVE_DATA);
		if (veth->port_flags & PN_PORT_HAIRPIN)
			pn_nl_put_u8(&batch, IFLA_BRPORT_MODE, 1);
		if (veth->port_flags & PN_PORT_ISOLATED)
			pn_nl_put_u8(&batch, IFLA_BRPORT_ISOLATED, 1);
		pn_nl_nest_end(&batch, data);
		pn_nl_nest_end(&batch, info);
	}
	return pn_nl_transact(nl, &batch, reterr);
}

static void delete_quietly(int nl, const char *name)
{
	struct pn_error ignored;

	pn_link_delete(nl, name, &ignored);
}

/* Two sends: were both requests in one, the second would alter a foreign link whenever the name is taken. */
PN_EXPORT int pn_veth_create(int nl, const struct pn_veth *veth, struct pn_error *reterr)
{
	int ret = check_name(veth->host_name, reterr);

	if (ret == 0)
		ret = check_name(veth->peer_name, reterr);
	if (ret == 0)
		ret = create_pair(nl, veth, reterr);
	if (ret < 0 || veth->port_flags == 0)
		return ret;
	ret = set_port_flags(nl, veth, reterr);
	if (ret < 0)
		delete_quietly(nl, veth->host_name);
	return ret;
}

/* ---- interface ---- */

PN_EXPORT int pn_link_configure(int nl, const struct pn_ifconfig *config, struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	int ret, index = pn_link_index(nl, config->name, reterr);

	if (index < 0)
		return index;
	pn_nl_init(&batch, config->name);
	add_address(&batch, index, config->address, config->prefix, config->broadcast);
	begin_link(&batch, PN_STEP_LINK, RTM_NEWLINK, index, IFF_UP, true);
	if (!is_zero(config->gateway, 4))
		add_route(&batch, index, no_address, 0, config->gateway);
	ret = pn_nl_transact(nl, &batch, reterr);
	return ret < 0 ? ret : index;
}

PN_EXPORT int pn_link_set_up(int nl, const char *name, int up, struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	int index = pn_link_index(nl, name, reterr);

	if (index < 0)
		return index;
	pn_nl_init(&batch, name);
	begin_link(&batch, PN_STEP_LINK, RTM_NEWLINK, index, IFF_UP, up);
	return pn_nl_transact(nl, &batch, reterr);
}

PN_EXPORT int pn_link_delete(int nl, const char *name, struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	struct pn_error error;
	int ret = check_name(name, reterr);

	if (ret < 0)
		return ret;
	pn_nl_init(&batch, name);
	begin_link(&batch, PN_STEP_LINK, RTM_DELLINK, 0, 0, false);
	ret = pn_nl_transact(nl, &batch, &error);
	if (ret == -ENODEV)
		return 0;
	if (ret < 0)
		*reterr = error;
	return ret;
}

PN_EXPORT int pn_address_add(int nl, const char *name, const uint8_t *address, uint32_t prefix, struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	int index = pn_link_index(nl, name, reterr);

	if (index < 0)
		return index;
	pn_nl_init(&batch, name);
	add_address(&batch, index, address, prefix, no_address);
	return pn_nl_transact(nl, &batch, reterr);
}

PN_EXPORT int pn_route_add(int nl, const char *name, const uint8_t *destination, uint32_t prefix,
			   const uint8_t *gateway, struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	int index = pn_link_index(nl, name, reterr);

	if (index < 0)
		return index;
	pn_nl_init(&batch, name);
	add_route(&batch, index, destination, prefix, gateway);
	return pn_nl_transact(nl, &batch, reterr);
}

/* ---- bridge ---- */

/* An own address, fixed: else a bridge takes the lowest of its ports', and neighbours' caches go stale with it. */
static void create_bridge(struct pn_nl_batch *batch, const char *name, uint32_t mtu, const uint8_t *address)
{
	const struct ifinfomsg link = { .ifi_family = AF_UNSPEC };
	uint8_t mac[6] = { 0x02, 0x42 };
	uint32_t info, data;

	memcpy(mac + 2, address, 4);
	pn_nl_begin(batch, PN_STEP_BRIDGE, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof(link));
	pn_nl_put_string(batch, IFLA_IFNAME, name);
	pn_nl_put(batch, IFLA_ADDRESS, mac, sizeof(mac));
	if (mtu)
		pn_nl_put_u32(batch, IFLA_MTU, mtu);
	info = pn_nl_nest(batch, IFLA_LINKINFO);
	pn_nl_put_string(batch, IFLA_INFO_KIND, "bridge");
	data = pn_nl_nest(batch, IFLA_INFO_DATA);
	pn_nl_put_u32(batch, IFLA_BR_FORWARD_DELAY, 0);
	pn_nl_put_u32(batch, IFLA_BR_STP_STATE, 0);
	pn_nl_nest_end(batch, data);
	pn_nl_nest_end(batch, info);
}

static int set_up_bridge(int nl, const char *name, const char *alias, const uint8_t *address, uint32_t prefix,
			 struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	int ret, index = pn_link_index(nl, name, reterr);

	if (index < 0)
		return index;
	pn_nl_init(&batch, name);
	begin_link(&batch, PN_STEP_BRIDGE, RTM_NEWLINK, index, 0, false);
	if (alias)
		pn_nl_put(&batch, IFLA_IFALIAS, alias, strlen(alias));
	put_no_link_local(&batch);
	add_address(&batch, index, address, prefix, no_address);
	begin_link(&batch, PN_STEP_BRIDGE, RTM_NEWLINK, index, IFF_UP, true);
	ret = pn_nl_transact(nl, &batch, reterr);
	return ret < 0 ? ret : index;
}

PN_EXPORT int pn_bridge_create(int nl, const char *name, const char *alias, uint32_t mtu, const uint8_t *address,
			       uint32_t prefix, struct pn_error *reterr)
{
	struct pn_nl_batch batch;
	int ret = check_name(name, reterr);

	if (ret < 0)
		return ret;
	pn_nl_init(&batch, name);
	create_bridge(&batch, name, mtu, address);
	ret = pn_nl_transact(nl, &batch, reterr);
	if (ret < 0)
		return ret;
	ret = set_up_bridge(nl, name, alias, address, prefix, reterr);
	if (ret < 0)
		delete_quietly(nl, name);
	return ret;
}
