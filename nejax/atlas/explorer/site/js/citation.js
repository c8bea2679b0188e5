// BibTeX entries: for what a page shows, and for the paper of the method.

const SPECIAL = {
  "\\": "\\textbackslash{}",
  "{": "\\{",
  "}": "\\}",
  "~": "\\textasciitilde{}",
  "^": "\\textasciicircum{}",
  "&": "\\&",
  "%": "\\%",
  $: "\\$",
  "#": "\\#",
  _: "\\_",
};

const PAPER = `@misc{foote2024tackling,
  author = {Foote, Alex},
  title = {Tackling Polysemanticity with Neuron Embeddings},
  year = {2024},
  eprint = {2411.08166},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2411.08166}
}`;

/** Text as TeX sets it: what means something to TeX is escaped, line breaks and control characters are spaces. */
const escaped = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ").replace(/[\\{}~^&%$#_]/g, (character) => SPECIAL[character]);

/** An address as a field that is read verbatim: only braces and backslashes could break out of it. */
const verbatim = (address) => address.replace(/[\\{}\s]/g, encodeURIComponent);

/** An entry for a page of an atlas, and the paper's. `id`: "3/185/0"; `title`: what the page shows. */
export function bibtex(atlas, { id, title, address, date = new Date() }) {
  const day = date.toISOString().slice(0, 10);
  const name = `${atlas.model}-${id}`.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "");
  const version = atlas.manifest?.versions?.nejax;
  const made = `Atlas of neuron embeddings${version ? `, nejax ${version}` : ""}`;
  return `@misc{nejax-${name},
  title = {${escaped(`${title} of ${atlas.model} on ${atlas.corpus}`)}},
  year = {${day.slice(0, 4)}},
  note = {${escaped(`${made}; fingerprint ${atlas.fingerprint}; accessed ${day}`)}},
  url = {${verbatim(address)}},
  urldate = {${day}}
}

${PAPER}
`;
}
