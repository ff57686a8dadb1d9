// The figures of the contrast as a picture, for the README: bars, one pair for each library and each thing done.

const COLOURS = { tilekeep: '#1a7f5a', presigned: '#c4512d' };
const text = (x, y, words, more = '') => `<text x="${x}" y="${y}" ${more}>${words}</text>`;

/** `rows` are `{ library, what, tilekeep, presigned }`: tiles fetched over the network. */
export const picture = (rows) => {
  const [left, width, line, top] = [250, 520, 44, 62];
  const highest = Math.max(...rows.flatMap(({ tilekeep, presigned }) => [tilekeep, presigned]), 1);
  const bar = (y, figure, colour) => `<rect x="${left}" y="${y}" width="${Math.max((figure / highest) * (width - 60), 2).toFixed(1)}" height="14" fill="${colour}"/>`
    + text(left + Math.max((figure / highest) * (width - 60), 2) + 6, y + 12, figure, 'font-weight="600"');
  const body = rows.map(({ library, what, tilekeep, presigned }, at) => {
    const y = top + at * line;
    return text(left - 12, y + 20, `${library}, ${what}`, 'text-anchor="end"') + bar(y, tilekeep, COLOURS.tilekeep) + bar(y + 17, presigned, COLOURS.presigned);
  }).join('\n');
  const height = top + rows.length * line + 8;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${left + width} ${height}" font-family="system-ui, sans-serif" font-size="14" fill="#1b1f24" role="img" aria-labelledby="t">
<title id="t">Tiles that were seen before and come over the network again, with Tilekeep and with presigned URLs</title>
<rect width="100%" height="100%" fill="#ffffff"/>
${text(12, 22, 'Tiles seen before that come over the network again', 'font-size="16" font-weight="600"')}
<rect x="12" y="34" width="12" height="12" fill="${COLOURS.tilekeep}"/>${text(30, 45, 'Tilekeep')}<rect x="110" y="34" width="12" height="12" fill="${COLOURS.presigned}"/>${text(128, 45, 'presigned URLs')}
${body}
</svg>
`;
};
