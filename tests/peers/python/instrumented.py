"""Flask with OpenTelemetry's own SDK: `instrumented.py PORT UPSTREAM COLLECTOR http|grpc`. `/order` asks the upstream."""
import sys

import requests
from flask import Flask
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from werkzeug.serving import make_server

port, upstream, collector, how = sys.argv[1:]
provider = TracerProvider(resource=Resource.create({"service.name": "sdk"}))
exporter = Grpc(endpoint=collector, insecure=True) if how == "grpc" else Http(endpoint=f"{collector}/v1/traces")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
RequestsInstrumentor().instrument()
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.get("/order")
def order():
    return requests.get(f"{upstream}/s/200", timeout=20).text


# One thread, so that each span is exported before its answer is sent.
make_server("127.0.0.1", int(port), app).serve_forever()
