/* The floor's network: one namespace, one veth pair, one address; three round trips to the kernel. */
#include "floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct batch {
	char data[2048];
	size_t used;
	struct nlmsghdr *message;
};

static int host_netlink = -1, host_netns = -1;
static unsigned int bridge_index;
static int have_ipv6;
static unsigned int eth0_index; /* the same in every new namespace: the first after its own devices */

static int open_netlink(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		die("netlink socket");
	return fd;
}

static void *begin(struct batch *batch, int type, int flags, size_t size)
{
	struct nlmsghdr *message = (void *)(batch->data + batch->used);

	memset(message, 0, NLMSG_LENGTH(size));
	message->nlmsg_len = NLMSG_LENGTH(size);
	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	batch->message = message;
	return NLMSG_DATA(message);
}

static struct rtattr *put(struct batch *batch, int type, const void *data, size_t size)
{
	struct nlmsghdr *message = batch->message;
	struct rtattr *attribute = (void *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(attribute), data, size);
	message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
	return attribute;
}

static void put_u32(struct batch *batch, int type, uint32_t value)
{
	put(batch, type, &value, sizeof(value));
}

static void put_string(struct batch *batch, int type, const char *value)
{
	put(batch, type, value, strlen(value) + 1);
}

static struct rtattr *nest(struct batch *batch, int type)
{
	return put(batch, type, NULL, 0);
}

static void nest_end(struct batch *batch, struct rtattr *attribute)
{
	attribute->rta_len = (char *)batch->message + batch->message->nlmsg_len - (char *)attribute;
}

static void end(struct batch *batch)
{
	batch->used += NLMSG_ALIGN(batch->message->nlmsg_len);
}

/* Sends all messages at once. Only the last asks for an answer; earlier ones answer only when they fail. */
static void send_batch(int fd, struct batch *batch, const char *step)
{
	char answer[4096];
	struct nlmsghdr *header = (void *)answer;
	const struct nlmsgerr *error = NLMSG_DATA(header);
	uint32_t last = 1;

	batch->message->nlmsg_flags |= NLM_F_ACK;
	batch->message->nlmsg_seq = last;
	if (send(fd, batch->data, batch->used, 0) < 0 || recv(fd, answer, sizeof(answer), 0) < 0)
		die(step);
	if (header->nlmsg_type == NLMSG_ERROR && error->error) {
		errno = -error->error;
		die(step);
	}
}

/* ---- the bridge ---- */

static void put_address(struct batch *batch, unsigned int index, const char *text)
{
	struct ifaddrmsg *address = begin(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*address));
	struct in_addr value, broadcast;

	inet_pton(AF_INET, text, &value);
	broadcast.s_addr = value.s_addr | htonl(0xffff);
	*address = (struct ifaddrmsg){ .ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = index };
	put(batch, IFA_LOCAL, &value, sizeof(value));
	put(batch, IFA_ADDRESS, &value, sizeof(value));
	put(batch, IFA_BROADCAST, &broadcast, sizeof(broadcast));
	end(batch);
}

static void delete_link(const char *name)
{
	struct batch batch = { 0 };
	struct ifinfomsg *link;

	if (!if_nametoindex(name))
		return;
	link = begin(&batch, RTM_DELLINK, 0, sizeof(*link));
	link->ifi_index = (int)if_nametoindex(name);
	end(&batch);
	send_batch(host_netlink, &batch, "delete bridge");
}

static void make_bridge(void)
{
	struct batch batch = { 0 };
	struct ifinfomsg *link = begin(&batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(*link));
	/* a given address: the kernel need not look for the lowest of all ports at each new one */
	const uint8_t mac[6] = { 0x02, 0x42, 10, 213, 0, 1 };
	struct rtattr *info;
	char address[32];

	link->ifi_flags = link->ifi_change = IFF_UP;
	put_string(&batch, IFLA_IFNAME, settings.bridge);
	put(&batch, IFLA_ADDRESS, mac, sizeof(mac));
	info = nest(&batch, IFLA_LINKINFO);
	put(&batch, IFLA_INFO_KIND, "bridge", 6);
	nest_end(&batch, info);
	end(&batch);
	send_batch(host_netlink, &batch, "bridge");
	bridge_index = if_nametoindex(settings.bridge);
	memset(&batch, 0, sizeof(batch));
	snprintf(address, sizeof(address), "%s.0.1", settings.subnet);
	put_address(&batch, bridge_index, address);
	send_batch(host_netlink, &batch, "bridge address");
}

/* The devices that a new namespace has by itself. */
static void find_devices(void)
{
	struct if_nameindex *all;

	if (unshare(CLONE_NEWNET) < 0)
		die("network namespace");
	all = if_nameindex();
	for (struct if_nameindex *each = all; each && each->if_index; each++)
		if (each->if_index >= eth0_index)
			eth0_index = each->if_index + 1;
	if_freenameindex(all);
	if (setns(host_netns, CLONE_NEWNET) < 0)
		die("back to the host's network namespace");
}

void net_open(void)
{
	host_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	find_devices();
	have_ipv6 = access("/proc/sys/net/ipv6", F_OK) == 0;
	host_netlink = open_netlink();
	delete_link(settings.bridge);
	make_bridge();
}

void net_close(void)
{
	delete_link(settings.bridge);
	close(host_netlink);
}

/* ---- one start ---- */

void pin_path(char path[256], unsigned int index)
{
	snprintf(path, 256, "%s/netns-%u", settings.runtime, index);
}

/* "all" changes the default for devices to come, too. By a procfs of its own: in a shared one the entries of every
 * living namespace have the same names in the same directories, and each look-up compares with all of them. */
static void turn_ipv6_off(void)
{
	int context = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC);
	int proc, fd;

	if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		die("procfs");
	proc = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
	fd = openat(proc, "sys/net/ipv6/conf/all/disable_ipv6", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		die("IPv6 off");
	close(fd);
	close(proc);
	close(context);
}

/* Leaving for a new namespace and coming back costs a tenth less than a child that is born in it. */
void make_netns(struct start *start)
{
	char pin[256];

	if (unshare(CLONE_NEWNET) < 0)
		die("network namespace");
	if (have_ipv6)
		turn_ipv6_off();
	start->netlink = open_netlink();
	start->netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	pin_path(pin, start->index);
	close(open(pin, O_CREAT | O_RDONLY | O_CLOEXEC, 0600));
	if (start->netns < 0 || mount("/proc/self/ns/net", pin, NULL, MS_BIND, NULL) < 0)
		die("pin network namespace");
	if (setns(host_netns, CLONE_NEWNET) < 0)
		die("back to the host's network namespace");
}

static void put_peer(struct batch *batch, const struct start *start)
{
	unsigned int number = start->index + 2;
	uint8_t mac[6] = { 0x02, 0x42, 10, 213, (uint8_t)(number >> 8), (uint8_t)number };
	struct ifinfomsg link = { .ifi_index = (int)eth0_index };
	struct rtattr *data = nest(batch, IFLA_INFO_DATA);
	struct rtattr *peer = put(batch, VETH_INFO_PEER, &link, sizeof(link));

	put_string(batch, IFLA_IFNAME, "eth0");
	put_u32(batch, IFLA_NET_NS_FD, (uint32_t)start->netns);
	put_u32(batch, IFLA_MTU, 1500);
	put_u32(batch, IFLA_NUM_TX_QUEUES, 1);
	put_u32(batch, IFLA_NUM_RX_QUEUES, 1);
	put(batch, IFLA_ADDRESS, mac, sizeof(mac));
	nest_end(batch, peer);
	nest_end(batch, data);
}

/* No link-local address on the port: its multicast would reach every other port. */
static void put_no_ipv6(struct batch *batch)
{
	struct rtattr *families = nest(batch, IFLA_AF_SPEC);
	struct rtattr *inet6 = nest(batch, AF_INET6);
	uint8_t none = IN6_ADDR_GEN_MODE_NONE;

	put(batch, IFLA_INET6_ADDR_GEN_MODE, &none, sizeof(none));
	nest_end(batch, inet6);
	nest_end(batch, families);
}

/* The kernel takes neither of the two in the message that makes the pair. */
static void put_port(struct batch *batch, const char *name)
{
	struct ifinfomsg *link = begin(batch, RTM_NEWLINK, 0, sizeof(*link));
	struct rtattr *info, *data;
	uint8_t on = 1;

	link->ifi_flags = link->ifi_change = IFF_UP;
	put_string(batch, IFLA_IFNAME, name);
	if (have_ipv6)
		put_no_ipv6(batch);
	info = nest(batch, IFLA_LINKINFO);
	put(batch, IFLA_INFO_SLAVE_KIND, "bridge", 6);
	data = nest(batch, IFLA_INFO_SLAVE_DATA);
	put(batch, IFLA_BRPORT_MODE, &on, sizeof(on));
	nest_end(batch, data);
	nest_end(batch, info);
	end(batch);
}

void make_veth(const struct start *start)
{
	struct batch batch = { 0 };
	struct ifinfomsg *link = begin(&batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(*link));
	struct rtattr *info;
	static unsigned int serial; /* a name of its own each time: the kernel deletes a dead namespace's pair late */
	char name[16];

	(void)link;
	snprintf(name, sizeof(name), "pf%u", serial++);
	put_string(&batch, IFLA_IFNAME, name);
	put_u32(&batch, IFLA_MASTER, bridge_index);
	put_u32(&batch, IFLA_MTU, 1500);
	put_u32(&batch, IFLA_NUM_TX_QUEUES, 1);
	put_u32(&batch, IFLA_NUM_RX_QUEUES, 1);
	info = nest(&batch, IFLA_LINKINFO);
	put(&batch, IFLA_INFO_KIND, "veth", 4);
	put_peer(&batch, start);
	nest_end(&batch, info);
	end(&batch);
	put_port(&batch, name);
	send_batch(host_netlink, &batch, "veth");
}

static void put_up(struct batch *batch, unsigned int index)
{
	struct ifinfomsg *link = begin(batch, RTM_NEWLINK, 0, sizeof(*link));

	link->ifi_index = (int)index;
	link->ifi_flags = link->ifi_change = IFF_UP;
	end(batch);
}

static void put_default_route(struct batch *batch)
{
	struct rtmsg *route = begin(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof(*route));
	struct in_addr gateway;
	char text[32];

	*route = (struct rtmsg){ .rtm_family = AF_INET,
				 .rtm_table = RT_TABLE_MAIN,
				 .rtm_protocol = RTPROT_BOOT,
				 .rtm_scope = RT_SCOPE_UNIVERSE,
				 .rtm_type = RTN_UNICAST };
	snprintf(text, sizeof(text), "%s.0.1", settings.subnet);
	inet_pton(AF_INET, text, &gateway);
	put(batch, RTA_GATEWAY, &gateway, sizeof(gateway));
	put_u32(batch, RTA_OIF, eth0_index);
	end(batch);
}

void configure(const struct start *start)
{
	struct batch batch = { 0 };
	unsigned int number = start->index + 2;
	char address[32];

	snprintf(address, sizeof(address), "%s.%u.%u", settings.subnet, number >> 8 & 255, number & 255);
	put_up(&batch, 1);
	put_address(&batch, eth0_index, address);
	put_up(&batch, eth0_index);
	put_default_route(&batch);
	send_batch(start->netlink, &batch, "configure");
}
