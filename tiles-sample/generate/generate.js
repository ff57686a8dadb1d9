// Makes Tilekeep's sample tiles: `npm run generate`, or `npm run generate -- world values countries` for some.
// The same packages give the same tiles: nothing is random, nothing is downloaded, no clock is read.

import { createHash } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { makeCountries } from "./lib/countries.js";
import { makeValues } from "./lib/values.js";
import { makeWorld } from "./lib/world.js";

const OUT = join(dirname(fileURLToPath(import.meta.url)), "..");

const SETS = {
  world: { make: makeWorld, extension: "png" },
  values: { make: makeValues, extension: "png" },
  countries: { make: makeCountries, extension: "mvt" },
};

const wanted = process.argv.slice(2);
for (const name of wanted) {
  if (!(name in SETS)) {
    console.error(`no set '${name}'; there are: ${Object.keys(SETS).join(", ")}`);
    process.exit(2);
  }
}

for (const [name, { make, extension }] of Object.entries(SETS)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  rmSync(join(OUT, name), { recursive: true, force: true });
  const zooms = new Map();
  make(({ z, x, y }, bytes) => {
    const file = join(OUT, name, String(z), String(x), `${y}.${extension}`);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, bytes);
    if (!zooms.has(z)) zooms.set(z, { bytes: 0, hashes: [] });
    zooms.get(z).bytes += bytes.length;
    zooms.get(z).hashes.push(createHash("sha256").update(bytes).digest("hex"));
  });
  let [tiles, bytes] = [0, 0];
  for (const [z, of] of zooms) {
    const times = new Map();
    for (const hash of of.hashes) times.set(hash, (times.get(hash) ?? 0) + 1);
    const twins = of.hashes.filter((hash) => times.get(hash) > 1).length;
    const share = ((100 * twins) / of.hashes.length).toFixed(1);
    console.log(`${name} zoom ${z}: ${of.hashes.length} tiles, ${of.bytes} bytes, ${share} % identical to another`);
    tiles += of.hashes.length;
    bytes += of.bytes;
  }
  console.log(`${name}: ${tiles} tiles, ${bytes} bytes`);
}
