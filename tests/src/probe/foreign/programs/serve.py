# A server on Python's http.server that speaks HTTP/1.1: PORT.
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"a page that is somewhat longer than what takes its place\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        if name == "page":
            self.whole(200, PAGE)
        elif name == "large":
            self.whole(200, b"x" * 300000)
        elif name == "chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command != "HEAD":
                for _ in range(10):
                    self.wfile.write(b"c8\r\n" + b"y" * 200 + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
        else:
            # Not send_error, which closes the connection.
            self.whole(404, b"there is nothing\n")

    do_HEAD = do_GET

    def whole(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
