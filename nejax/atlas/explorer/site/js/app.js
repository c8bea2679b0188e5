// The explorer: opens the atlas, then shows the page that the address names.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { render } from "../vendor/preact.js";
import { AtlasContext } from "./context.js";
import { openAtlas } from "./data.js";
import { Header } from "./header.js";
import { html } from "./html.js";
import { Keys } from "./keys.js";
import { About } from "./pages/about.js";
import { Compare } from "./pages/compare.js";
import { FeaturePage } from "./pages/feature.js";
import { Model } from "./pages/model.js";
import { NeuronPage } from "./pages/neuron.js";
import { Neurons } from "./pages/neurons.js";
import { Search } from "./pages/search.js";
import { SequencePage } from "./pages/sequence.js";
import { Starred } from "./pages/starred.js";
import { Problem } from "./problem.js";
import { useRoute } from "./route.js";

const PAGES = {
  model: Model,
  neurons: Neurons,
  neuron: NeuronPage,
  feature: FeaturePage,
  compare: Compare,
  search: Search,
  sequence: SequencePage,
  starred: Starred,
  about: About,
};

function App() {
  const route = useRoute();
  const [atlas, setAtlas] = useState(null);
  const [error, setError] = useState(null);
  const main = useRef(null);
  const place = route.path.join("/");
  useEffect(() => void openAtlas().then(setAtlas, setError), []);
  useEffect(() => {
    if (!atlas) return;
    scrollTo(0, 0);
    main.current?.querySelector("h1")?.focus({ preventScroll: true }); // a screen reader goes on from the title
  }, [place, atlas]);
  if (error) return html`<main><${Problem} error=${error} /></main>`;
  if (!atlas) return html`<main><p class="loading">Opening the atlas …</p></main>`;
  const [name = "model", ...ids] = route.path;
  const Page = PAGES[name];
  return html`<${AtlasContext.Provider} value=${atlas}>
    <${Header} route=${route} />
    <main ref=${main} id="main">
      ${Page
        ? html`<${Page} key=${name} ids=${ids} query=${route.query} />`
        : html`<${Problem} error=${{ message: `There is no page ${name}.` }} />`}
    </main>
    <${Keys} route=${route} />
  <//>`;
}

render(html`<${App} />`, document.getElementById("app"));
