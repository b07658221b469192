// The queries of a panel, asked as Grafana's data source asks them.

/** As observability/prometheus.yml has it; in seconds. */
const SCRAPE = 5;

/** What Grafana puts in place of `$__rate_interval`. */
const rateInterval = (step) => `${Math.max(step + SCRAPE, 4 * SCRAPE)}s`;

const withLabels = (legend, labels) => legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? '');

/** Returns each curve of a panel: its name, and its points as [milliseconds, value]. */
export async function readPanel(panel, { prometheus, from, to }) {
  const step = SCRAPE;
  const curves = [];
  for (const target of panel.targets) {
    const query = target.expr.replaceAll('$__rate_interval', rateInterval(step));
    if (query.includes('$')) {
      throw new Error(`${panel.title}: a variable is left in ${query}`);
    }
    const body = new URLSearchParams({ query, start: from, end: to, step });
    const response = await fetch(`${prometheus}/api/v1/query_range`, { method: 'POST', body });
    const answer = await response.json();
    if (answer.status !== 'success') {
      throw new Error(`${panel.title}: ${answer.error}`);
    }
    for (const { metric, values } of answer.data.result) {
      const points = values.map(([time, value]) => [time * 1000, Number.isFinite(Number(value)) ? Number(value) : null]);
      curves.push({ name: withLabels(target.legendFormat, metric), points });
    }
  }
  return curves;
}
