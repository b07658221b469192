"""POST /v1/jobs as one would first write it in Python: FastAPI, pydantic and boto3.

The same request, checks, ids, message and answer as image-api, over the same SQS: a job of this API can be performed by
image-worker. One client of boto3 for all requests; FastAPI runs the endpoint on its thread pool, as boto3 blocks. No
rate limits, no metrics, no problem+json. Prints "ready" once, and ends on SIGTERM.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Annotated

import boto3
import uvicorn
from botocore.config import Config
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

QUEUE_URL = os.environ["SQS_QUEUE_URL"]
ID_KEY = os.environ["JOB_ID_KEYS"].split(",")[0].encode()
# FastAPI's thread pool has 40 threads.
THREADS = 40
MAX_PROMPT_CHARS = 10_000

FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")

sqs = boto3.client("sqs", config=Config(max_pool_connections=THREADS, retries={"mode": "standard"}))


def tenants():
    pairs = (entry.split(":", 1) for entry in os.environ["API_KEYS"].split(","))
    return [(hashlib.sha256(key.encode()).digest(), tenant) for tenant, key in pairs]


TENANTS = tenants()


def text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    if FORBIDDEN.search(value):
        raise ValueError("contains a character that the queue or the model does not take")
    return value


Text = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS), AfterValidator(text)]


class SubmitRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: Text
    negative_prompt: Text | None = None
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] | None = None
    deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None


class AcceptedJob(BaseModel):
    id: str
    status: str
    status_url: str
    created_at: str


# Not on a thread of its own: nothing in it waits.
async def caller(authorization: Annotated[str | None, Header()] = None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise HTTPException(401, "send your key as 'Authorization: Bearer KEY'", {"WWW-Authenticate": "Bearer"})
    digest = hashlib.sha256(key.strip().encode()).digest()
    found = None
    for known, tenant in TENANTS:
        if hmac.compare_digest(known, digest):
            found = tenant
    if found is None:
        raise HTTPException(401, "the key is not known", {"WWW-Authenticate": "Bearer"})
    return found


def issue(tenant: str, milliseconds: int) -> str:
    """A UUIDv7 and the first eight bytes of its HMAC, as job/src/key_ring.rs makes them."""
    value = milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    uuid = value.to_bytes(16, "big")
    return f"{uuid.hex()}-{hmac.digest(ID_KEY, uuid + tenant.encode(), 'sha256')[:8].hex()}"


def timestamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@asynccontextmanager
async def lifespan(_: FastAPI):
    print("ready", flush=True)
    yield


app = FastAPI(title="image pipeline", lifespan=lifespan)


@app.post("/v1/jobs", status_code=202)
def submit_job(
    request: SubmitRequest,
    response: Response,
    tenant: Annotated[str, Depends(caller)],
    traceparent: Annotated[str | None, Header()] = None,
    x_correlation_id: Annotated[str | None, Header()] = None,
) -> AcceptedJob:
    milliseconds = time.time_ns() // 1_000_000
    submitted_at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    job_id = issue(tenant, milliseconds)
    correlation_id = x_correlation_id or secrets.token_hex(16)
    spec = {"prompt": request.prompt}
    if request.negative_prompt is not None:
        spec["negative_prompt"] = request.negative_prompt
    if request.seed:
        spec["seed"] = request.seed
    job = {
        "v": 1,
        "id": job_id,
        "tenant": tenant,
        "spec": spec,
        "submitted_at": timestamp(submitted_at),
        "trace": {
            "traceparent": traceparent or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            "correlation_id": correlation_id,
        },
    }
    if request.deadline_seconds:
        job["deadline_at"] = timestamp(submitted_at + timedelta(seconds=request.deadline_seconds))
    sqs.send_message(QueueUrl=QUEUE_URL, MessageBody=json.dumps(job, ensure_ascii=False), MessageGroupId=tenant)
    status_url = f"/v1/jobs/{job_id}"
    response.headers["Location"] = status_url
    response.headers["Retry-After"] = "2"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Correlation-Id"] = correlation_id
    return AcceptedJob(id=job_id, status="queued", status_url=status_url, created_at=timestamp(submitted_at))


if __name__ == "__main__":
    # One line a request to the log, as image-api writes one.
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), loop="uvloop", http="httptools", access_log=True)
