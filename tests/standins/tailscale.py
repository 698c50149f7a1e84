#!/usr/bin/env python3
"""A stand-in for the `tailscale` program: tailscale.py STATE-DIRECTORY ARGUMENTS…

It copies the observed behaviour of tailscale 1.102.3: exit codes, messages and streams, options only before the
target, state kept between calls.
"""

import json, os, re, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from state import state

SOCKET = "/var/run/tailscale/tailscaled.sock"
USAGE = "Serve content and local servers on your tailnet\n\nUSAGE\n  tailscale serve <target>"
LABEL = re.compile(r"svc:[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")


class Fail(Exception):
    def __init__(self, code, text):
        self.code, self.text = code, text


def no_daemon(path):
    return (f"Failed to connect to local Tailscale daemon for /localapi/v0/{path}; not running? Error: dial unix "
            f"{SOCKET}: connect: no such file or directory")


def status(now, arguments):
    if not now["daemon"]:
        raise Fail(1, "failed to connect to local tailscaled; it doesn't appear to be running "
                      "(sudo systemctl start tailscaled ?)")
    if "--json" not in arguments:
        print(now["state"])
        return
    connected = now["state"] == "Running"
    capabilities = {"https": None} if now["https"] else {}
    approved = [name for name, nodes in now["approved"].items() if now["id"] in nodes]
    if approved and now["hears"]:
        capabilities["service-host"] = [{name: ["100.93.49.180", "fd7a:115c:a1e0::3456:3cb4"]} for name in approved]
    own = {"ID": now["id"], "HostName": now["host"], "DNSName": f"{now['host']}.{now['suffix']}.", "CapMap": capabilities}
    if now["tags"]:
        own["Tags"] = now["tags"]
    tailnet = {"Name": "example.com", "MagicDNSSuffix": now["suffix"], "MagicDNSEnabled": True}
    result = {"Version": now["version"], "BackendState": now["state"], "Self": own, "Health": [],
              "MagicDNSSuffix": now["suffix"] if connected else "", "CurrentTailnet": tailnet if connected else None}
    if "--peers=false" not in arguments:
        result["Peer"] = {f"nodekey:{number}": {"HostName": "x" * 500} for number in range(500)}
    print(json.dumps(result, indent=2))


def connected(now):
    state = now["state"]
    if state != "Running":
        raise Fail(1, {"NeedsLogin": "Logged out.\nLog in at: https://login.tailscale.com/a/abc",
                       "NeedsMachineAuth": "Machine is not yet approved by tailnet admin.",
                       "Stopped": "Tailscale is stopped."}.get(state, f"unexpected state: {state}"))


def save(now, config):
    """The POST of the serve configuration."""
    if now["denied"]:
        raise Fail(1, "sending serve config: Access denied: serve config denied\n\nUse 'sudo tailscale serve'.\n"
                      "To not require root, use 'sudo tailscale set --operator=$USER' once.")
    if now["conflicts"] > 0:
        now["conflicts"] -= 1
        raise Fail(1, "Another client is changing the serve config; please try again.\n"
                      "sending serve config: Preconditions failed: etag mismatch")
    if now["post_fails"]:
        raise Fail(1, f"sending serve config: updating config: {now['post_fails']}")
    now["serve"] = config


def set_advertised(now, name, wanted):
    now["advertised"] = [other for other in now["advertised"] if other != name] + ([name] if wanted else [])
    if wanted and now["auto_approve"]:
        now["approved"].setdefault(name, []).append(now["id"])


def serve_target(now, name, options, target):
    config = json.loads(json.dumps(now["serve"]))
    connected(now)
    kind, port = next(((kind, int(options[kind])) for kind in ("https", "http", "tcp") if kind in options), ("https", 443))
    if kind == "https" and (now["prompts"] or not now["https"]):
        print(f"\nServe is not enabled on your tailnet.\nTo enable, visit:\n\n         "
              f"https://login.tailscale.com/f/serve?node={now['id']}\n", flush=True)
        return "wait" if now["prompt_waits"] else None
    if not now["tags"]:
        raise Fail(1, "service hosts must be tagged nodes")
    if target.isdigit():
        target = f"http://127.0.0.1:{target}"
    service = config.setdefault("Services", {}).setdefault(name, {})
    there = service.setdefault("TCP", {}).get(str(port))
    if kind == "tcp":
        if there and "TCPForward" not in there:
            raise Fail(1, f"error: failed to apply TCP serve: cannot serve TCP; already serving web on {port} for {name}"
                          "\n\ntry `tailscale serve --help` for usage info")
        service["TCP"][str(port)] = {"TCPForward": target.removeprefix("tcp://")}
    else:
        if there and "TCPForward" in there:
            raise Fail(1, "error: failed apply web serve: cannot serve web; already serving TCP\n\n"
                          "try `tailscale serve --help` for usage info")
        if there and list(there) != [kind.upper()]:
            set_advertised(now, name, True)
            raise Fail(1, f'sending serve config: updating config: want to serve "{kind}", but port {port} is already '
                          f'serving "{list(there)[0].lower()}" for {name}')
        service["TCP"][str(port)] = {kind.upper(): True}
        host = f"{name.removeprefix('svc:')}.{now['suffix']}:{port}"
        service.setdefault("Web", {})[host] = {"Handlers": {"/": {"Proxy": target}}}
    if not now["denied"]:
        # The preferences go first, and a configuration that is refused then leaves them.
        set_advertised(now, name, True)
    save(now, config)
    approved = now["id"] in now["approved"].get(name, [])
    print("Available within your tailnet:" if approved else
          f"This machine is configured as a service proxy for {name}, but approval from an admin is required. Once "
          "approved, it will be available in your Tailnet as:")
    print(f"\n{kind}://{name.removeprefix('svc:')}.{now['suffix']}/\n|-- proxy {target}\n\nServe started and running in "
          f"the background.\nTo disable the proxy, run: tailscale serve --service={name} --{kind}={port} off\nTo remove "
          f"config for the service, run: tailscale serve clear {name}")


def serve(now, arguments):
    if arguments[:1] == ["status"]:
        if not now["daemon"]:
            raise Fail(1, f"getting serve config: {no_daemon('serve-config')}")
        print(json.dumps(now["serve"], indent=2))
        return None
    if arguments[:1] and arguments[0] in ("drain", "clear", "advertise"):
        if len(arguments) != 2:
            raise Fail(1, "try `tailscale serve --help` for usage info")
        command, name = arguments
        if not LABEL.match(name):
            raise Fail(1, f'invalid service name: "{name}" is not a valid service name: must start with \'svc:\'')
        if not now["daemon"]:
            raise Fail(1, f"error getting serve config: getting serve config: {no_daemon('serve-config')}")
        if command == "clear" and name not in now["serve"].get("Services", {}):
            print(f"2026/11/21 05:00:22 service {name} not found in serve config, nothing to clear", file=sys.stderr)
            return None
        if now["denied"]:
            raise Fail(1, f"error removing service {name} from prefs: Access denied: prefs write access denied\n\n"
                          f"Use 'sudo tailscale serve {command} {name}'.")
        if command == "clear":
            config = json.loads(json.dumps(now["serve"]))
            del config["Services"][name]
            set_advertised(now, name, False)
            save(now, config if config["Services"] else {})
        else:
            set_advertised(now, name, command == "advertise")
        return None
    if arguments[:1] == ["reset"]:
        now["serve"] = {}
        return None
    options, rest = {}, list(arguments)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0).lstrip("-")
        name, has_value, value = flag.partition("=")
        known = ["service", "https", "http", "tcp", "bg", "yes"]
        if name not in known or (name == "service" and not now["knows_services"]):
            raise Fail(2, f"flag provided but not defined: -{name}\n{USAGE}")
        options[name] = value if has_value else rest.pop(0) if name not in ("bg", "yes") else "true"
    name = options.get("service", "")
    if not LABEL.match(name):
        raise Fail(2, f'invalid value "{name}" for flag -service: invalid service name: "{name}"\n{USAGE}')
    if not rest:
        raise Fail(0, USAGE)
    if len(rest) > 1:
        raise Fail(1, "Error: invalid argument format\ntry `tailscale serve --help` for usage info")
    if not now["daemon"]:
        raise Fail(1, f"error getting serve config: getting serve config: {no_daemon('serve-config')}")
    return serve_target(now, name, options, rest[0])


def main():
    directory, arguments = sys.argv[1], sys.argv[2:]
    with open(os.path.join(directory, "calls.jsonl"), "a") as log:
        log.write(json.dumps({"arguments": arguments, "environment": dict(os.environ)}) + "\n")
    waits, code = None, 0
    with state(directory) as now:
        hangs = any(" ".join(arguments).startswith(start) for start in now["hangs"])
        if now["noise"]:
            print('Warning: client version "1.104.0" != tailscaled server version "1.102.3"', file=sys.stderr)
        try:
            if hangs:
                pass
            elif arguments[:1] == ["status"]:
                status(now, arguments)
            elif arguments[:1] == ["serve"]:
                waits = serve(now, arguments[1:])
            else:
                raise Fail(1, f"unknown subcommand: {arguments}")
        except Fail as fail:
            print(fail.text, file=sys.stderr)
            code = fail.code
    if hangs or waits:
        time.sleep(1000)
    sys.exit(code)


main()
