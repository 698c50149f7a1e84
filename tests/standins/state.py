"""What the stand-ins share: a directory with the state of a tailnet, kept between calls."""

import contextlib, fcntl, json, os

DEFAULTS = {
    # The machine, and what its daemon says.
    "version": "1.102.3", "state": "Running", "id": "n292kg92CNTRL", "host": "dev", "suffix": "tail1234.ts.net",
    "tags": ["tag:devport"], "https": True, "prompts": False, "prompt_waits": False, "daemon": True, "denied": False, "noise": False,
    "knows_services": True, "conflicts": 0, "post_fails": "", "hangs": [], "auto_approve": False, "hears": True,
    # The API.
    "keys": ["tskey-api-GOOD"], "clients": {"client1": "tskey-client-GOOD"}, "faults": [], "other_hosts": [],
    # What was done.
    "serve": {}, "advertised": [], "definitions": {}, "approved": {}, "renamed": [],
}


@contextlib.contextmanager
def state(directory):
    """The state, alone, written back in the end."""
    with open(os.path.join(directory, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = os.path.join(directory, "state.json")
        now = dict(DEFAULTS)
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            now.update(json.load(file))
        yield now
        with open(path + ".new", "w") as file:
            json.dump(now, file)
        os.rename(path + ".new", path)
