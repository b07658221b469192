"""The worker as one would write it first: boto3 and Pillow on threads.

The same queue, bucket, model and pictures as image-worker. It is a good citizen and no more: clients and connections are
reused, receives are long and take ten, one thread works on one job. It keeps no lease, claims nothing and checkpoints
nothing. Prints "ready" once, and ends on SIGTERM.
"""

import base64
import concurrent.futures
import io
import json
import os
import signal
import threading
from datetime import datetime, timezone

import boto3
from botocore.config import Config
from PIL import Image

QUEUE_URL = os.environ["SQS_QUEUE_URL"]
BUCKET = os.environ["S3_BUCKET_NAME"]
MODEL = os.environ["BEDROCK_MODEL_ID"]
THREADS = int(os.environ["PEER_SLOTS"])
SIDE = 1024
QUALITY = 80

config = Config(
    max_pool_connections=THREADS + 1,
    retries={"mode": "standard"},
    s3={"addressing_style": "path"},
    read_timeout=90,
)
# One client for all threads: clients are thread-safe, and making one costs 20 ms.
sqs = boto3.client("sqs", config=config)
s3 = boto3.client("s3", config=config)
bedrock = boto3.client("bedrock-runtime", config=config)


def now():
    return datetime.now(timezone.utc).isoformat()


def generate(spec, seed):
    body = {"prompt": spec["prompt"], "aspect_ratio": "1:1", "output_format": "png", "seed": seed}
    if spec.get("negative_prompt"):
        body["negative_prompt"] = spec["negative_prompt"]
    answer = bedrock.invoke_model(modelId=MODEL, body=json.dumps(body), contentType="application/json")
    answer = json.loads(answer["body"].read())
    if answer.get("finish_reasons", [None])[0]:
        raise RuntimeError(answer["finish_reasons"][0])
    return base64.b64decode(answer["images"][0])


def render(source):
    with Image.open(io.BytesIO(source)) as picture:
        picture = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=QUALITY, method=4)
    return encoded.getvalue()


def perform(message):
    job = json.loads(message["Body"])
    started = now()
    picture = render(generate(job["spec"], job["spec"].get("seed") or 1))
    s3.put_object(
        Bucket=BUCKET,
        Key=f"images/{job['id']}.webp",
        Body=picture,
        ContentType="image/webp",
        CacheControl="public, max-age=31536000, immutable",
    )
    record = {"id": job["id"], "status": "succeeded", "started_at": started, "finished_at": now(), "bytes": len(picture)}
    s3.put_object(
        Bucket=BUCKET, Key=f"records/{job['id']}.json", Body=json.dumps(record), ContentType="application/json"
    )
    sqs.delete_message(QueueUrl=QUEUE_URL, ReceiptHandle=message["ReceiptHandle"])


def main():
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    free = threading.Semaphore(THREADS)

    def work(message):
        try:
            perform(message)
        finally:
            free.release()

    print("ready", flush=True)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        futures = set()
        while not stopping.is_set():
            # Not more than can start now, as image-worker does it.
            free.acquire()
            slots = 1
            while slots < 10 and free.acquire(blocking=False):
                slots += 1
            received = sqs.receive_message(
                QueueUrl=QUEUE_URL, MaxNumberOfMessages=slots, WaitTimeSeconds=2, VisibilityTimeout=300
            ).get("Messages", [])
            for _ in range(slots - len(received)):
                free.release()
            futures |= {pool.submit(work, message) for message in received}
            done = {future for future in futures if future.done()}
            futures -= done
            for future in done:
                # A failure ends the run: what is measured then would be something else.
                future.result()


main()
