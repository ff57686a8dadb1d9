"""CloudFront as far as its documentation says it: trusted key groups, signed cookies and URLs, cache policy, origins.

Of Python's own and `cryptography`: nothing of the server's. Behaviours: `/TILESET/*` wants a signature, caches by path
and `v`, forwards no cookie and adds the secret; everything else is passed through as it is, to an origin without one.
"""
import base64, fnmatch, http.client, http.server, json, re, sys, threading, urllib.parse

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

settings = json.loads(sys.argv[1])
key = serialization.load_pem_public_key(settings["public_key"].encode())
clock = {"now": settings["now"]}
kept = {}
lock = threading.Lock()


def bytes_of(text):
    return base64.b64decode(text.translate(str.maketrans("-_~", "+=/")), validate=True)


def allows(policy, signature, key_id, algorithm, url):
    if key_id != settings["key_pair_id"]:
        return False
    hashed = {"SHA256": hashes.SHA256, "SHA1": hashes.SHA1, None: hashes.SHA1}[algorithm]()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(bytes_of(signature), policy, padding.PKCS1v15(), hashed)
        else:
            key.verify(bytes_of(signature), policy, ec.ECDSA(hashed))
    except (InvalidSignature, ValueError):
        return False
    (statement,) = json.loads(policy)["Statement"]
    # `[` is a letter of a URL's here, and no class.
    pattern = re.compile(fnmatch.translate(statement["Resource"].replace("[", "[[]")))
    ends = statement["Condition"]["DateLessThan"]["AWS:EpochTime"]
    return bool(pattern.match(url)) and clock["now"] < ends


class Edge(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body, cache=None):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "keep-alive"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if cache:
            self.send_header("X-Cache", f"{cache} from cloudfront")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def ask(self, target, headers, body=None):
        origin = http.client.HTTPConnection("127.0.0.1", settings["origin"], timeout=20)
        origin.request(self.command, target, body, headers)
        response = origin.getresponse()
        return response.status, response.getheaders(), response.read()

    def signed(self, url, query):
        cookies = dict(pair.strip().split("=", 1) for pair in self.headers.get("Cookie", "").split(";") if "=" in pair)
        url_signed = "Signature" in query
        get = (lambda name: query.get(name, [None])[0]) if url_signed else (lambda name: cookies.get("CloudFront-" + name))
        signature, key_id = get("Signature"), get("Key-Pair-Id")
        if not signature or not key_id:
            return False
        if get("Policy"):
            policy = bytes_of(get("Policy"))
        else:
            policy = ('{"Statement":[{"Resource":"%s","Condition":{"DateLessThan":{"AWS:EpochTime":%s}}}]}'
                      % (url, get("Expires"))).encode()
        return allows(policy, signature, key_id, get("Hash-Algorithm"), url)

    def do(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        path, _, raw = self.path.partition("?")
        if path == "/__now":
            clock["now"] = int(body)
            return self.answer(204, [], b"")
        if path.split("/")[1] not in settings["tilesets"] or path.count("/") == 1:
            viewer = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            return self.answer(*self.ask(self.path, viewer, body), cache="Miss")
        query = urllib.parse.parse_qs(raw)
        own = ("Expires", "Policy", "Signature", "Key-Pair-Id", "Hash-Algorithm")
        rest = "&".join(pair for pair in raw.split("&") if pair and pair.split("=")[0] not in own)
        url = f"https://{settings['domain']}{path}" + (f"?{rest}" if rest else "")
        if not self.signed(url, query):
            return self.answer(403, [("Content-Type", "text/xml")], b"<Error><Code>AccessDenied</Code></Error>", "Error")
        version = f"?v={query['v'][0]}" if "v" in query else ""
        with lock:
            return self.tile(path + version)

    def tile(self, target):
        found = kept.get(target)
        if found and clock["now"] < found["until"]:
            age = [("Age", str(clock["now"] - found["since"]))]
            return self.answer(200, found["headers"] + age, found["body"], "Hit")
        headers = {"X-Tilekeep-Origin-Secret": settings["secret"], "Host": "origin.example.com", "Accept-Encoding": "gzip"}
        if found:
            headers["If-None-Match"] = found["etag"]
        status, sent, body = self.ask(target, headers)
        said = {name.lower(): value for name, value in sent}
        control = said.get("cache-control", "")
        shared = re.search(r"s-maxage=(\d+)", control)
        until = clock["now"] + int(shared[1]) if shared and "private" not in control else 0
        if status == 304:
            found.update(until=until, since=clock["now"])
            return self.answer(200, found["headers"], found["body"], "RefreshHit")
        if status == 200 and until:
            kept[target] = dict(headers=sent, body=body, etag=said["etag"], until=until, since=clock["now"])
        return self.answer(status, sent, body, "Miss" if status < 400 else "Error")

    do_GET = do_HEAD = do_POST = do_DELETE = do


http.server.ThreadingHTTPServer(("127.0.0.1", settings["listen"]), Edge).serve_forever()
