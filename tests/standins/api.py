#!/usr/bin/env python3
"""A stand-in for Tailscale's HTTP API: api.py STATE-DIRECTORY. Prints its port, and serves until its standard input ends.

It copies Tailscale's API: paths, bodies, statuses and errors. `faults` in the state are
responses that come instead, each for a number of times: method, path (part of it), status, headers, body, delay.
"""

import json, os, re, sys, threading, time, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from state import state

DIRECTORY = sys.argv[1]
SERVICE = re.compile(r"/api/v2/tailnet/([^/]+)/services/(svc:[a-z0-9-]+)(/devices|/device/([^/]+)/approved)?$")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def respond(self, status, body=None, headers=()):
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-type" for name, _ in headers):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length).decode()
        path = urllib.parse.unquote(self.path)
        fault, reply = None, None
        with state(DIRECTORY) as now:
            with open(os.path.join(DIRECTORY, "requests.jsonl"), "a") as log:
                log.write(json.dumps({"method": self.command, "path": self.path, "body": None if "oauth" in path else text}) + "\n")
            for index, one in enumerate(now["faults"]):
                if one.get("method", self.command) == self.command and one.get("path", "") in path:
                    fault = dict(one)
                    one["times"] = one.get("times", 1) - 1
                    if one["times"] <= 0:
                        del now["faults"][index]
                    break
            if fault is None:
                reply = self.reply(now, path, text)
        if fault is not None:
            time.sleep(fault.get("delay", 0))
            reply = (fault.get("status", 500), fault.get("body"), list(fault.get("headers", {}).items()))
        self.respond(*reply)

    do_GET = do_PUT = do_POST = do_DELETE = handle_any

    def reply(self, now, path, text):
        if path == "/api/v2/oauth/token":
            form = dict(urllib.parse.parse_qsl(text))
            if self.command != "POST" or now["clients"].get(form.get("client_id")) != form.get("client_secret"):
                return 401, {"message": "API token invalid"}
            return 200, {"access_token": "opaque-TOKEN", "token_type": "Bearer", "expires_in": 3600, "scope": "services"}
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or token not in now["keys"] + ["opaque-TOKEN"]:
            return 401, {"message": f"API token invalid: {token}"}
        found = SERVICE.match(path)
        if not found:
            return 404, {"message": "not found"}
        tailnet, name, rest, device = found.groups()
        if tailnet not in ("-", "T1234CNTRL"):
            return 404, {"message": "tailnet not found"}
        definitions = now["definitions"]
        there = definitions.get(name)
        if rest == "/devices":
            if there is None:
                return 404, {"message": "service not found"}
            ids = now["other_hosts"] + ([now["id"]] if name in now["advertised"] else [])
            return 200, {"hosts": [{"stableNodeID": one, "approvalLevel": "not-approved", "configured": "ready"} for one in ids]}
        if device:
            if there is None:
                return 404, {"message": "service not found"}
            approved = now["approved"].setdefault(name, [])
            if self.command == "POST":
                wanted = json.loads(text)["approved"]
                approved[:] = [one for one in approved if one != device] + ([device] if wanted else [])
            return 200, {"approved": device in approved, "autoApproved": False}
        if self.command == "GET":
            return (200, there) if there else (404, {"message": "service not found"})
        if self.command == "DELETE":
            definitions.pop(name, None)
            now["approved"].pop(name, None)
            return 200, None
        if self.command == "PUT":
            body = json.loads(text)
            if there and not body.get("addrs"):
                return 400, {"message": "addrs must not be empty"}
            if not all(re.fullmatch(r"tcp:\d+|do-not-validate", port) for port in body.get("ports", [])):
                return 400, {"message": "invalid port"}
            body.setdefault("addrs", ["100.93.49.180", "fd7a:115c:a1e0::3456:3cb4"])
            if body.get("name", name) != name:
                definitions.pop(name, None)
                now["renamed"].append([name, body["name"]])
            definitions[body.get("name", name)] = body
            return 200, body
        return 405, {"message": "method not allowed"}


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


# Its end of the pipe closes however it ends.
threading.Thread(target=end_with_the_test, daemon=True).start()
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
