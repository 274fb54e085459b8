"""Answers HTTP: what was asked for, and how often this instance was asked."""

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, OutgoingBody, OutgoingResponse, ResponseOutparam

asked = 0


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        global asked
        asked += 1
        said = f"Python was asked for {request.path_with_query()}, {asked} time(s)\n"
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(said.encode())
        OutgoingBody.finish(body, None)
