"""A container's log options as the shim reads them.

Owns: which of them is which field of `struct pn_log_options`. What they may be is model/log_config.py's.
"""

from __future__ import annotations

from ...kernel import frame
from ...model.log_config import LogOptions

_DRIVERS = {"json-file": frame.LOG_JSON_FILE, "local": frame.LOG_LOCAL, "none": frame.LOG_NONE}


def encode_log_options(options: LogOptions, name: str) -> bytes:
    """What a Task takes as `log_options`. `name`: the log's path below its `log_dir_fd`."""
    buffer = {"max_buffer": options.max_buffer} if options.non_blocking else {}
    return frame.log_options(
        _DRIVERS[options.driver],
        name,
        mode=frame.LOG_NON_BLOCKING if options.non_blocking else frame.LOG_BLOCKING,
        max_size=options.max_size,
        max_file=options.max_file,
        **buffer,
    )
