"""What answers of real InfluxDB servers mean to the shipper."""

import pytest

from powerhall_agent.delivery.outputs.refusals import Refusal, classify


@pytest.mark.parametrize(
    ("status", "text", "meaning"),
    [
        (400, "unable to parse 'gpu power_w=oops': invalid number", Refusal.LINES),
        (422, "failure writing points: field type conflict", Refusal.LINES),
        (413, "request entity too large", Refusal.LINES),
        (400, "partial write: points beyond retention policy dropped=8", Refusal.TOO_OLD),
        (422, "write failed: points outside retention policy", Refusal.TOO_OLD),
        (400, "timeout", Refusal.BUSY),
        (401, "unauthorized", Refusal.NOT_ALLOWED),
        (403, "forbidden", Refusal.NOT_ALLOWED),
        (404, 'database not found: "power"', Refusal.NO_BUCKET),
        (404, "404 page not found", Refusal.NO_ENDPOINT),
        (301, "", Refusal.REDIRECT),
        (0, "CERTIFICATE_VERIFY_FAILED", Refusal.TLS),
        (429, "", Refusal.BUSY),
        (500, "partial write: points beyond retention policy", Refusal.BUSY),
        (503, "", Refusal.BUSY),
    ],
)
def test_status_and_message_have_one_meaning(status, text, meaning):
    assert classify(status, text) is meaning
