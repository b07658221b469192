// Asks a Prometheus what the dashboard's panels show, and makes a page that draws them without a network.
//
//   node build.mjs --prometheus http://127.0.0.1:9090 --minutes 5 --out FOLDER

import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { readPanel } from './src/prometheus.mjs';

const { values: args } = parseArgs({
  options: {
    prometheus: { type: 'string', default: 'http://127.0.0.1:9090' },
    minutes: { type: 'string', default: '5' },
    out: { type: 'string' },
  },
});
const minutes = Number(args.minutes);
if (!args.out || !(minutes > 0)) {
  console.error('usage: node build.mjs --prometheus URL --minutes NUMBER --out FOLDER');
  process.exit(64);
}

const here = import.meta.dirname;
const dashboard = JSON.parse(await readFile(join(here, '../grafana/dashboards/pipeline.json'), 'utf8'));
const to = Math.floor(Date.now() / 1000);
const window = { prometheus: args.prometheus, from: to - minutes * 60, to };
const panels = [];
for (const panel of dashboard.panels) {
  panels.push({ ...panel, curves: await readPanel(panel, window) });
}

await mkdir(args.out, { recursive: true });
await build({
  entryPoints: { page: join(here, 'src/page.jsx') },
  outdir: args.out,
  bundle: true,
  minify: true,
  format: 'iife',
  jsx: 'automatic',
  define: {
    'process.env.NODE_ENV': '"production"',
    global: 'globalThis',
    DASHBOARD: JSON.stringify({ title: dashboard.title, from: window.from * 1000, to: window.to * 1000, panels }),
  },
  // Icons of an editor that no panel has.
  loader: { '.svg': 'dataurl', '.woff': 'empty', '.woff2': 'dataurl', '.ttf': 'empty' },
  logLevel: 'warning',
});
await copyFile(join(here, 'index.html'), join(args.out, 'index.html'));
