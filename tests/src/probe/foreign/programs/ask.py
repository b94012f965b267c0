# A client on Python's http.client: METHOD PATH… -- BASE….
import base64
import http.client
import sys
from urllib.parse import urlsplit

words = sys.argv[1:]
end = words.index("--")
asked, bases = words[:end], words[end + 1 :]
for base in bases:
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    for method, path in zip(asked[::2], asked[1::2]):
        connection.request(method, path, body=b"hello" if method == "POST" else None)
        response = connection.getresponse()
        body = response.read()
        print(
            response.status,
            response.getheader("Content-Length", "-"),
            response.getheader("X-New", "-"),
            base64.b64encode(body).decode(),
            sep="\t",
        )
