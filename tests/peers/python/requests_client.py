"""requests with a Session."""
import sys

import requests

base, count = sys.argv[1], int(sys.argv[2])
statuses = (200, 404, 500, 503, 204, 304)
session = requests.Session()
session.trust_env = False


def show(method, path, **more):
    answer = session.request(method, base + path, allow_redirects=False, **more)
    print(method, path, answer.status_code, len(answer.content))


for i in range(count):
    show("GET", f"/fixed/{i}")
    show("GET", f"/chunked/{i}")
    show("POST", "/echo", data=b"y" * (i + 1))
    show("GET", f"/status/{statuses[i % 6]}")
