"""An S3 server for the tests: moto, in memory, with one bucket.

    s3_server.py BUCKET

Prints one line of JSON when it is ready. One thread: moto looks whether a key exists and then writes it, so only one request at
a time makes a conditional write the atomic step that it is on S3.
"""
import json
import sys

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

WSGIRequestHandler.log_request = lambda *_: None
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(sys.argv[1], "us-east-1")
print(json.dumps({"event": "ready", "port": server.server_port}), flush=True)
server.serve_forever()
