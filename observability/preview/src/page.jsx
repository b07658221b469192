// The page: every panel at its place in the grid, drawn by Grafana's own components.

import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import { createRoot } from 'react-dom/client';
import { createTheme } from '@grafana/data';
import { GlobalStyles, ThemeContext } from '@grafana/ui';
import { DashboardPanel } from './panel.jsx';

/** Grafana's grid: 24 columns, rows of 30 pixels, 8 pixels between panels. */
const COLUMNS = 24;
const ROW = 30;
const GAP = 8;
const MARGIN = 16;

const theme = createTheme({ colors: { mode: 'dark' } });
const { title, from, to, panels } = DASHBOARD;

document.body.style.margin = 0;

const time = (at) => new Date(at).toISOString().slice(11, 16);

/** Panels fall upwards, as in Grafana, until they rest on another one. */
function settled(all) {
  const placed = [];
  for (const panel of [...all].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x)) {
    const { x, w, h } = panel.gridPos;
    const above = placed.filter((other) => other.x < x + w && x < other.x + other.w);
    placed.push({ panel, x, w, h, y: Math.max(0, ...above.map((other) => other.y + other.h)) });
  }
  return placed;
}

function Page({ width }) {
  const column = (width - 2 * MARGIN + GAP) / COLUMNS;
  const places = settled(panels);
  const rows = Math.max(...places.map(({ y, h }) => y + h));
  return (
    <div style={{ padding: MARGIN, background: theme.colors.background.canvas, minHeight: '100vh', boxSizing: 'border-box' }}>
      <div style={{ display: 'flex', justifyContent: 'space-between', marginBottom: 12, color: theme.colors.text.primary }}>
        <div style={{ fontSize: 18, fontWeight: 500 }}>{title}</div>
        <div style={{ color: theme.colors.text.secondary }}>{`${time(from)} to ${time(to)} UTC`}</div>
      </div>
      <div style={{ position: 'relative', height: rows * (ROW + GAP) }}>
        {places.map(({ panel, x, y, w, h }) => (
          <div key={panel.title} style={{ position: 'absolute', left: x * column, top: y * (ROW + GAP) }}>
            <DashboardPanel panel={panel} theme={theme} width={w * column - GAP} height={h * (ROW + GAP) - GAP} from={from} to={to} />
          </div>
        ))}
      </div>
    </div>
  );
}

createRoot(document.getElementById('page')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <Page width={window.innerWidth} />
  </ThemeContext.Provider>
);
