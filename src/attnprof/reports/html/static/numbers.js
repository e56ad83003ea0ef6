// Numbers as text, by the same rules as the terminal: prefixes, three significant figures, exact arithmetic.
// A fraction is [numerator, denominator], both BigInt: no digit is lost on the way from the report.

const DECIMAL = ["", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q"];
const BINARY = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
const TIMES = [["s", 1n], ["ms", 1000n], ["µs", 1000000n], ["ns", 1000000000n]];

const big = (value) => (typeof value === "bigint" ? value : BigInt(value));
const sum = (values) => values.reduce((all, value) => all + value, 0n);
const abs = (n) => (n < 0n ? -n : n);

/** A number of the data (a whole one, one too long for a double, a double) as a fraction. */
function fraction(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return [big(value), 1n];
  let denominator = 1n;
  while (!Number.isInteger(value)) {
    value *= 2;
    denominator *= 2n;
  }
  return [BigInt(value), denominator];
}

/** The whole number next to a fraction, halves to the even one. */
function nearest([n, d]) {
  const below = abs(n) / d;
  const rest = 2n * (abs(n) % d);
  const up = rest > d || (rest === d && below % 2n === 1n);
  return (n < 0n ? -1n : 1n) * (up ? below + 1n : below);
}

/** Three significant figures; digits left of the point are never dropped. */
function rounded([n, d]) {
  if (n === 0n) return "0";
  let decimals = 2;
  while (decimals && abs(n) >= 10n ** BigInt(3 - decimals) * d) decimals -= 1;
  while (abs(n) * 10n ** BigInt(decimals) < 100n * d) decimals += 1;
  let figures = nearest([n * 10n ** BigInt(decimals), d]);
  if (decimals && abs(figures) === 1000n) {
    decimals -= 1;
    figures /= 10n;
  }
  const digits = String(abs(figures)).padStart(decimals + 1, "0");
  const text = decimals ? `${digits.slice(0, -decimals)}.${digits.slice(-decimals)}` : digits;
  return figures < 0n ? `-${text}` : text;
}

const plain = ([n, d]) => (d === 1n ? String(n) : rounded([n, d]));

/** ``["1.31", "T"]``; whole numbers below 10,000 keep every digit. */
function split([n, d], binary) {
  const [names, step] = binary ? [BINARY, 1024n] : [DECIMAL, 1000n];
  let text = plain([n, d]);
  if (Math.abs(Number(text)) < 10000) return [text, ""];
  let power = 0;
  while (power < names.length - 1 && Math.abs(Number(text)) >= Number(step)) {
    power += 1;
    text = rounded([n, d * step ** BigInt(power)]);
  }
  return [text, names[power]];
}

/** Every digit, in groups of three. */
function exactly([n, d]) {
  const whole = String(abs(n) / d).replace(/\B(?=(\d{3})+$)/g, ",");
  const half = abs(n) % d ? ".5" : ""; // the only fractions that are shown so are halves, of multiply-adds
  return `${n < 0n ? "-" : ""}${whole}${half}`;
}

/** A number of a kind (matmul, flops, bytes, count) in the units that are chosen: [number, unit]. */
function measure(value, kind, units) {
  let [n, d] = fraction(value);
  if (kind === "matmul" && units.macs) [n, d] = n % 2n ? [n, 2n * d] : [n / 2n, d];
  const unit = kind === "bytes" ? "B" : "";
  if (units.exact) return [exactly([n, d]), unit];
  const [text, prefix] = split([n, d], units.binary && kind === "bytes");
  return [text, prefix + unit];
}

/** The unit of a kind of number without a prefix: FLOP, MAC, B or nothing. */
function unitOf(kind, units) {
  if (kind === "count") return "";
  return kind === "bytes" ? "B" : kind === "matmul" && units.macs ? "MAC" : "FLOP";
}

/** One number with its unit: ``19.3 GFLOP``, ``13.6 GB``. */
function named(value, kind, units) {
  const [number, prefix] = measure(value, kind, units);
  const unit = kind === "bytes" ? prefix : prefix + unitOf(kind, units);
  return unit ? `${number} ${unit}` : number;
}

/** Every digit, with the unit: for hover texts. */
const inFull = (value, kind, units) => named(value, kind, { ...units, exact: true });

/** A part as per cent of the whole, one decimal: ``38.2``, ``<0.1``. Both are fractions or whole numbers. */
function percent(part, whole) {
  const [a, b] = [Array.isArray(part) ? part : fraction(part), Array.isArray(whole) ? whole : fraction(whole)];
  const [n, d] = [a[0] * b[1] * 100n, a[1] * b[0]];
  if (!n || !d) return "0";
  if (abs(n) * 20n < abs(d)) return "<0.1";
  if (n === d * 100n) return "100";
  const tenths = nearest([n * 10n, d]);
  return tenths === 1000n && n < d * 100n ? ">99.9" : `${tenths / 10n}.${abs(tenths % 10n)}`;
}

/** A time in seconds as [number, unit]. */
function timed(seconds) {
  if (!seconds) return ["0", "s"];
  const [n, d] = fraction(seconds);
  const found = TIMES.map(([unit, per]) => [rounded([n * per, d]), unit]);
  return found.find(([number]) => Math.abs(Number(number)) >= 1) || found[found.length - 1];
}

const duration = (seconds) => timed(seconds).join(" ");

/** FLOPs per byte; null where nothing is moved. */
const perByte = (flops, bytes) => (bytes ? rounded([big(flops), big(bytes)]) : null);

/** A rate: ``67.0 TFLOP/s``, ``3.35 TB/s``. */
const rate = (value, kind) => `${named(Math.round(value), kind, {})}/s`;

const counted = (n, one, several) => `${exactly(fraction(n))} ${big(n) === 1n ? one : several || `${one}s`}`;
