"""Jobs for the workers of RQ and Celery, and the Celery app. Each processing
is noted in the file $JOB_LOG: what began, what ended, and when."""

import os
import time

import celery

PORT = os.environ.get("JOB_PORT", "6379")
app = celery.Celery("queue_jobs", broker=f"redis://127.0.0.1:{PORT}/0",
                    backend=f"redis://127.0.0.1:{PORT}/0")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1,
                broker_transport_options={"visibility_timeout": 3600})


def _note(what, number):
    line = f"{time.monotonic():.6f} {what} {number}\n"
    file = os.open(os.environ["JOB_LOG"],
                   os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def work(number):
    _note("begin", number)
    time.sleep(0.05)  # the work
    _note("end", number)
    return number


@app.task(name="work")
def task(number):
    return work(number)
