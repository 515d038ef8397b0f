"""See a request as a span, as metrics and as log lines that lead to each other by the id of their trace.

In a service the providers are set up once, with exporters that send; here everything stays in the process.
"""

import asyncio
import json
import logging
import sys
import tempfile

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id

from router import Router, acting, parse
from router.errors import RouterError
from router.integrations.opentelemetry import instrument


class JsonLines(logging.Formatter):
    """Write each record as a line of JSON, with all its fields."""

    own = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {name: value for name, value in vars(record).items() if name not in self.own}
        line = {"level": record.levelname, "logger": record.name, "message": record.getMessage(), **fields}
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)


async def handle(router: Router) -> None:
    """Do what a request of the application does."""
    async with router.session("acme") as session:
        async with session.transaction() as tx:
            await tx.execute("INSERT INTO plans (name) VALUES (:name)", {"name": "not in any span"})
        await session.fetch_all("SELECT * FROM plans WHERE name = 'nor is this'")
        try:
            await session.execute("INSERT INTO plans (name) VALUES (:name)", {"name": "not in any span"})
        except RouterError as error:
            print("refused:", error.message)


async def main() -> None:
    """Instrument a router, make a request, and look at what was told."""
    exported = InMemorySpanExporter()  # in a service: OTLPSpanExporter() in a BatchSpanProcessor
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exported))
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.getLogger("router").addHandler(handler)

    with tempfile.TemporaryDirectory() as folder:
        config = parse(
            {
                "version": 1,
                "clusters": {"main": {"engine": "sqlite", "primary": {"path": folder}}},
                "defaults": {"slow_query": "0ms"},  # everything is slow, to show it
                "tenants": {"acme": {"cluster": "main", "isolation": "database", "database": "acme"}},
            }
        )
        async with Router.open(config) as router:
            await router.execute("CREATE TABLE plans (name TEXT UNIQUE)", tenant="acme")
            instrument(router, tracer_provider=tracers)
            app = tracers.get_tracer("app")
            with app.start_as_current_span("POST /plans") as span, acting(context_id="request-17"):
                await handle(router)
            trace = format_trace_id(span.get_span_context().trace_id)
            text = router.metrics.render("application/openmetrics-text").decode()

    names = {each.context.span_id: each.name for each in exported.get_finished_spans() if each.context}
    for each in exported.get_finished_spans():
        under = names[each.parent.span_id] if each.parent else "nothing"
        print(f"span {each.name!r} under {under!r}: {each.status.status_code.name}")
    for name, value in sorted((exported.get_finished_spans()[0].attributes or {}).items()):
        print(f"    {name} = {value!r}")
    print("the trace is named by an exemplar:", f'trace_id="{trace}"' in text)


asyncio.run(main())
