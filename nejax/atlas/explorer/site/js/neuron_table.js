// A table of any number of neurons: only the rows in view are in the document, and one of them is current.

import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/hooks.js";
import { html } from "./html.js";
import { NeuronRow } from "./neuron_row.js";
import { go, to } from "./route.js";
import { TableHead } from "./table_head.js";

const ROW = 28; // px, as in the sheet
const SPARE = 8; // rows kept ready above and below

/**
 * The table.
 *
 * ids: the neurons, in order. shownColumns: of the measures. columns: {name: values}, a missing one is on its way.
 * top: the row to begin at. onTop(row) tells where the person has scrolled to.
 * sort {name, descending}, ranges: for the head.
 * mark: {id} a neuron to bring into view and to make current, or null; a new object each time.
 */
export function NeuronTable({ atlas, ids, shownColumns, columns, sort, ranges, top, onTop, mark }) {
  const scroller = useRef(null);
  const table = useRef(null);
  const [view, setView] = useState({ first: top, n: 40 });
  const told = useRef(null); // the row last given to onTop: the address then follows the person, not the reverse
  const [current, setCurrent] = useState(null); // {index of a row, ids it is an index of}
  const last = Math.max(ids.length - 1, 0);
  const row = current?.ids === ids ? current.index : null;

  const measure = () => {
    if (!scroller.current) return view; // an observer may call once more at the end
    const { scrollTop, clientHeight } = scroller.current;
    const first = Math.round(scrollTop / ROW);
    const n = Math.max(Math.floor((clientHeight - table.current.tHead.offsetHeight) / ROW), 1);
    setView((old) => (old.first === first && old.n === n ? old : { first, n }));
    return { first, n };
  };
  const scroll = () => {
    told.current = measure().first;
    onTop(told.current);
  };
  useLayoutEffect(() => {
    if (top !== told.current) scroller.current.scrollTop = top * ROW;
    measure();
  }, [top, ids]);
  useEffect(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);
  const show = (index) => {
    const { first, n } = measure();
    setCurrent({ index, ids });
    if (index < first) scroller.current.scrollTop = index * ROW;
    else if (index >= first + n) scroller.current.scrollTop = (index - n + 1) * ROW;
  };
  useEffect(() => {
    const index = mark ? ids.indexOf(mark.id) : -1;
    if (index < 0) return;
    setCurrent({ index, ids });
    scroller.current.scrollTop = Math.max(index - Math.floor(view.n / 3), 0) * ROW;
    table.current.focus({ preventScroll: true });
  }, [mark]);

  const place = (id) => [Math.floor(id / atlas.d_mlp), id % atlas.d_mlp];
  const press = (event) => {
    if (event.target !== table.current || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && row !== null) return go(to.neuron(...place(ids[row])));
    const { first, n } = view;
    const from = row ?? first - 1;
    const targets = {
      ArrowDown: from + 1,
      ArrowUp: from - 1,
      PageDown: (row ?? first) + n,
      PageUp: (row ?? first) - n,
      Home: 0,
      End: last,
    };
    if (!(event.key in targets) || !ids.length) return;
    event.preventDefault();
    show(Math.min(Math.max(targets[event.key], 0), last));
  };

  const start = Math.max(Math.min(view.first, last) - SPARE, 0);
  const end = Math.min(view.first + view.n + 1 + SPARE, ids.length);
  const width = shownColumns.length + 2;
  return html`<div ref=${scroller} class="table-scroll neuron-table" onScroll=${scroll}>
    <table
      ref=${table}
      role="grid"
      tabindex="0"
      data-arrows
      aria-label="Neurons. Arrow and page keys move, Enter opens."
      aria-rowcount=${ids.length + 2}
      aria-colcount=${width}
      aria-activedescendant=${row !== null && row >= start && row < end ? `row-${ids[row]}` : undefined}
      onKeyDown=${press}
    >
      <${TableHead} ...${{ shownColumns, columns, sort, ranges }} />
      <tbody>
        <${Gap} rows=${start} width=${width} />
        ${Array.from(ids.subarray(start, end), (id, i) => {
          const [layer, neuron] = place(id);
          return html`<${NeuronRow}
            key=${id}
            ...${{ id, layer, neuron, shownColumns, columns }}
            index=${start + i}
            isCurrent=${start + i === row}
          />`;
        })}
        <${Gap} rows=${ids.length - end} width=${width} />
      </tbody>
    </table>
  </div>`;
}

/** The height of rows that are not there. */
const Gap = ({ rows, width }) =>
  rows > 0 &&
  html`<tr aria-hidden="true" class="gap">
    <td colspan=${width} style=${{ height: `${rows * ROW}px` }} />
  </tr>`;
