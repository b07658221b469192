// One panel: its frame, and in it a chart or a number.

import { dateTime, FieldColorModeId, FieldType, getDisplayProcessor, toDataFrame } from '@grafana/data';
import { GraphDrawStyle, LineInterpolation } from '@grafana/schema';
import { BigValue, PanelChrome, TimeSeries } from '@grafana/ui';

/** Each curve as the data source would hand it over, with the options of the panel and a colour of Grafana's palette. */
function frames(panel, theme) {
  const { custom, ...options } = panel.fieldConfig.defaults;
  return panel.curves.map(({ name, points }, seriesIndex) => {
    const config = {
      ...options,
      displayName: name,
      color: { mode: FieldColorModeId.PaletteClassic },
      custom: { drawStyle: GraphDrawStyle.Line, lineInterpolation: LineInterpolation.Linear, ...custom },
    };
    const time = { name: 'time', type: FieldType.time, config: {}, values: points.map(([at]) => at) };
    const value = { name, type: FieldType.number, config, values: points.map(([, value]) => value) };
    const frame = toDataFrame({ name, fields: [time, value] });
    for (const field of frame.fields) {
      field.state = { ...field.state, displayName: name, seriesIndex };
      field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
    }
    return frame;
  });
}

function Chart({ panel, theme, width, height, from, to }) {
  const [begin, end] = [dateTime(from), dateTime(to)];
  const timeRange = { from: begin, to: end, raw: { from: begin, to: end } };
  const legend = { showLegend: true, calcs: [], ...panel.options.legend };
  return <TimeSeries frames={frames(panel, theme)} width={width} height={height} timeRange={timeRange} timeZone="utc" legend={legend} />;
}

/** The last value, in the colour of a panel without thresholds. */
function Stat({ panel, theme, width, height }) {
  const [frame] = frames(panel, theme);
  const field = frame?.fields[1];
  const last = field?.values.filter((value) => value !== null).at(-1);
  const value = field ? field.display(last) : { text: 'No data', numeric: NaN };
  const color = theme.visualization.getColorByName('green');
  return <BigValue theme={theme} width={width} height={height} value={{ ...value, color }} colorMode="value" graphMode="none" textMode="value" />;
}

export function DashboardPanel({ panel, theme, width, height, from, to }) {
  const Content = panel.type === 'stat' ? Stat : Chart;
  return (
    <PanelChrome title={panel.title} width={width} height={height}>
      {(innerWidth, innerHeight) => (
        <Content panel={panel} theme={theme} width={innerWidth} height={innerHeight} from={from} to={to} />
      )}
    </PanelChrome>
  );
}
