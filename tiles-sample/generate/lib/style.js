// How the `world` tiles look: colours, widths and type, by zoom. Nothing here draws.

export const WATER = "#c6dbe6";

/** Bands of lighter water along the coast, from the outermost in: half width in pixels, colour. */
export const SHALLOWS = [
  [22, "#cadee8"],
  [17, "#cee1ea"],
  [12.5, "#d3e4ec"],
  [8.5, "#d8e8ef"],
  [5, "#deecf1"],
  [2.5, "#e6f1f4"],
];

export const shallowsScale = (zoom) => [0.2, 0.3, 0.45, 0.65, 0.85, 1][zoom];

/** Fill, and the ribbon that runs along the inside of a country's border, by colour class. */
export const LAND = [
  { fill: "#f7f1e1", ribbon: "#e9d9ae" }, // sand
  { fill: "#eef3e4", ribbon: "#c9dcb0" }, // sage
  { fill: "#f8ebe4", ribbon: "#ecc7b4" }, // clay
  { fill: "#f1edf4", ribbon: "#d2c5de" }, // heather
  { fill: "#e9f2ef", ribbon: "#b4d6cb" }, // mint
  { fill: "#f9eeee", ribbon: "#ebc2c8" }, // rose
];

export const ICE = { fill: "#fbfcfd", ribbon: "#dfe9ef" };
export const ICE_KEYS = new Set(["Antarctica", "Greenland"]);

export const ribbonWidth = (zoom) => [0, 2, 4, 6, 9, 12][zoom];

export const BORDER = { colour: "#a39a96", width: (zoom) => [0.3, 0.5, 0.7, 0.8, 0.9, 1][zoom] };
export const COAST = { colour: "#7fa0b3", width: (zoom) => [0.3, 0.5, 0.6, 0.7, 0.75, 0.8][zoom] };

/**
 * Meridians and parallels every so many degrees, on water alone. 30 and 15 are chosen with the tiles in mind:
 * a tile at zoom 5 is 11.25° wide, so at 15° the lines fall into tile columns in three ways and no more, and
 * open-sea tiles stay identical to each other.
 */
export const GRATICULE = {
  colour: "#b7cfdc",
  step: (zoom) => (zoom <= 3 ? 30 : 15),
  from: 1,
};

export const FONT = "Source Sans 3";

export const LABEL = {
  country: { colour: "#4d4a52", halo: "rgba(255,255,255,0.8)" },
  small: { colour: "#5f5b63", halo: "rgba(255,255,255,0.8)" },
  ocean: { colour: "#6f98b0" },
};

/** Seas and oceans: name in lines, where, from which zoom to which, size at the first of these. */
export const OCEANS = [
  [["Pacific", "Ocean"], -140, 8, 1, 5, 12],
  [["Pacific", "Ocean"], 165, 22, 2, 5, 13],
  [["Pacific", "Ocean"], -110, -30, 3, 5, 15],
  [["Atlantic", "Ocean"], -42, 27, 1, 5, 12],
  [["Atlantic", "Ocean"], -12, -24, 2, 5, 13],
  [["Indian", "Ocean"], 79, -23, 1, 5, 12],
  [["Southern Ocean"], 25, -60, 2, 5, 12],
  [["Southern Ocean"], -130, -62, 2, 5, 12],
  [["Arctic Ocean"], -160, 79, 2, 5, 11],
  [["Mediterranean", "Sea"], 18.2, 34.6, 4, 5, 12],
  [["Black Sea"], 34.5, 43.2, 4, 5, 11],
  [["Caspian", "Sea"], 50.6, 41.6, 5, 5, 11],
  [["North", "Sea"], 3, 56.3, 4, 5, 11],
  [["Norwegian", "Sea"], 1, 67.5, 3, 5, 11],
  [["Barents", "Sea"], 39, 74, 3, 5, 11],
  [["Arabian", "Sea"], 64, 15, 3, 5, 12],
  [["Bay of", "Bengal"], 88.5, 14, 3, 5, 12],
  [["Red", "Sea"], 38.1, 20, 5, 5, 11],
  [["South", "China", "Sea"], 114.2, 14, 4, 5, 12],
  [["Philippine", "Sea"], 133, 18, 3, 5, 12],
  [["Sea of", "Japan"], 134.6, 40.2, 4, 5, 11],
  [["Sea of", "Okhotsk"], 149, 53.5, 3, 5, 12],
  [["Bering", "Sea"], -177, 58.2, 3, 5, 12],
  [["Gulf of", "Alaska"], -146, 56.5, 4, 5, 12],
  [["Hudson", "Bay"], -85.5, 59.6, 4, 5, 12],
  [["Labrador", "Sea"], -54, 58.5, 3, 5, 11],
  [["Baffin", "Bay"], -67.5, 73.5, 4, 5, 11],
  [["Gulf of", "Mexico"], -90.3, 25.2, 4, 5, 12],
  [["Caribbean", "Sea"], -75.5, 15, 4, 5, 12],
  [["Tasman", "Sea"], 160, -38.5, 3, 5, 12],
  [["Coral", "Sea"], 154.5, -17.5, 4, 5, 12],
  [["Weddell", "Sea"], -45, -71.5, 3, 5, 11],
  [["Ross", "Sea"], -176, -74.5, 3, 5, 11],
];
