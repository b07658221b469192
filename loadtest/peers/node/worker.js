// The worker as one would write it first in Node: sqs-consumer and sharp.
//
// The same queue, bucket, model and pictures as image-worker. Clients and connections are reused, receives are long and
// take ten, libvips works on its own threads. It keeps no lease, claims nothing and checkpoints nothing. Prints "ready"
// once, and ends on SIGTERM.

import { BedrockRuntimeClient, InvokeModelCommand } from "@aws-sdk/client-bedrock-runtime";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { SQSClient } from "@aws-sdk/client-sqs";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import sharp from "sharp";
import { Consumer } from "sqs-consumer";

const { SQS_QUEUE_URL, S3_BUCKET_NAME, BEDROCK_MODEL_ID, PEER_SLOTS } = process.env;
const SIDE = 1024;
const QUALITY = 80;
const BATCH = 10;

const sqs = new SQSClient({});
const s3 = new S3Client({ forcePathStyle: true });
// The client speaks HTTP/2 by default, the stand-in HTTP/1.1.
const bedrock = new BedrockRuntimeClient({ requestHandler: new NodeHttpHandler() });

async function generate(spec) {
  const body = { prompt: spec.prompt, aspect_ratio: "1:1", output_format: "png", seed: spec.seed || 1 };
  if (spec.negative_prompt) body.negative_prompt = spec.negative_prompt;
  const command = { modelId: BEDROCK_MODEL_ID, contentType: "application/json", body: JSON.stringify(body) };
  const answer = JSON.parse((await bedrock.send(new InvokeModelCommand(command))).body.transformToString());
  if (answer.finish_reasons?.[0]) throw new Error(answer.finish_reasons[0]);
  return Buffer.from(answer.images[0], "base64");
}

function put(key, body, type, headers = {}) {
  return s3.send(new PutObjectCommand({ Bucket: S3_BUCKET_NAME, Key: key, Body: body, ContentType: type, ...headers }));
}

async function perform(message) {
  const job = JSON.parse(message.Body);
  const started_at = new Date().toISOString();
  const source = await generate(job.spec);
  const picture = await sharp(source).removeAlpha().resize(SIDE, SIDE).webp({ quality: QUALITY }).toBuffer();
  await put(`images/${job.id}.webp`, picture, "image/webp", { CacheControl: "public, max-age=31536000, immutable" });
  const record = { id: job.id, status: "succeeded", started_at, finished_at: new Date().toISOString(), bytes: picture.length };
  await put(`records/${job.id}.json`, JSON.stringify(record), "application/json");
  return message;
}

// A consumer asks for the next ten when its ten are done; several of them keep the cores busy meanwhile.
const consumers = Array.from({ length: Math.ceil(Number(PEER_SLOTS) / BATCH) }, () => {
  const consumer = Consumer.create({
    queueUrl: SQS_QUEUE_URL,
    sqs,
    batchSize: BATCH,
    waitTimeSeconds: 2,
    visibilityTimeout: 300,
    handleMessage: perform,
  });
  // A failure ends the run: what is measured then would be something else.
  for (const event of ["error", "processing_error", "timeout_error"]) {
    consumer.on(event, (error) => {
      console.error(error);
      process.exit(1);
    });
  }
  consumer.start();
  return consumer;
});

process.on("SIGTERM", () => consumers.forEach((consumer) => consumer.stop()));
console.log("ready");
