// Files that the page makes for a person to keep.

/** Offer text or a blob as a download. */
export function download(name, content, type = "text/plain") {
  const blob = content instanceof Blob ? content : new Blob([content], { type: `${type};charset=utf-8` });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A table as CSV (RFC 4180): columns are {title: [values]}. */
export function csv(columns) {
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const cells = (values) => values.map((value) => quoted(String(value ?? ""))).join(",");
  const names = Object.keys(columns);
  const rows = columns[names[0]].map((_, i) => cells(names.map((name) => columns[name][i])));
  return [cells(names), ...rows].join("\r\n") + "\r\n";
}
