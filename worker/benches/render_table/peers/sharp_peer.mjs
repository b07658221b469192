// Renders as one would with sharp: centred cover, lanczos3, WebP effort 4. One line in (input, quality, output), one out.
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const sharp = createRequire(process.argv[2] + '/')('sharp');
sharp.concurrency(1);
sharp.cache(false);

for await (const line of createInterface({ input: process.stdin })) {
  const [path, quality, output] = line.split('\t');
  const source = readFileSync(path);
  // The whole process: libvips works on threads of its own.
  const began = process.cpuUsage();
  const encoded = await sharp(source).removeAlpha().resize(1024, 1024, { fit: 'cover', kernel: 'lanczos3' })
    .webp({ quality: Number(quality), effort: 4 }).toBuffer();
  const spent = process.cpuUsage(began);
  writeFileSync(output, encoded);
  console.log((spent.user + spent.system) * 1000);
}
