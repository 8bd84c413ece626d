"""Retry policies as the tests need them."""


def policy(attempts=3, codes=("UNAVAILABLE",), backoff="0.01s",
           service="test.Svc", name=None, **more):
    """A service config with one explicit retryPolicy."""
    return {"methodConfig": [{
        "name": [name if name is not None else {"service": service}],
        "retryPolicy": {"maxAttempts": attempts, "initialBackoff": backoff,
                        "maxBackoff": "2s", "backoffMultiplier": 2,
                        "retryableStatusCodes": list(codes)}, **more}]}


def blanket(retries, codes="UNAVAILABLE", backoff="10ms"):
    """The same by INI keys: for methods nobody has named."""
    return [f"upstream.max_retry_attempts={retries}",
            f"upstream.retryable_status_codes={codes}",
            f"upstream.initial_backoff={backoff}"]


SAFE = ["upstream.idempotent_methods=/test.Svc/*"]
