"""An application (`CORRAL_APP`) that has OpenTelemetry's SDK write spans to the file that
`ACME_SPANS` names.
"""

from __future__ import annotations

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

out = Path(os.environ["ACME_SPANS"]).open("a", encoding="utf-8")  # noqa: SIM115  # as long as the process
exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
