"""A chat room's incoming webhook, as notifiers post to it."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


@contextlib.contextmanager
def chat_room():
    """Serve on loopback: `url`, what was `got` as (path, body), and `answers` to give in turn, 200 afterwards."""
    room = SimpleNamespace(got=[], answers=[])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            room.got.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            code, text = room.answers.pop(0) if room.answers else (200, "ok")
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    room.url = f"http://127.0.0.1:{server.server_port}/hook/very-secret?key=1"
    yield room
    server.shutdown()
    server.server_close()
