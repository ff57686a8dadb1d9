// What every page has to be, whatever it shows: it fits its screen, and axe-core finds no violation. A screenshot stays.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { screenshot } from './browser.js';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Checks a page as it is now. `what` names the screenshot. */
export const checkPage = async (page, what, t, options) => {
  await screenshot(page, what, options);
  const width = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
  assert.ok(width[0] <= width[1], `no scrolling sideways: ${width[0]} in ${width[1]} pixels`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const words = violations.map(({ id, impact, help, nodes }) => `${impact} ${id}: ${help}; ${nodes.length} places, such as\n${nodes.slice(0, 3).map(({ target, failureSummary }) => `  ${target.join(' ')}: ${failureSummary}`).join('\n')}`);
  assert.deepEqual(words, [], `axe-core on ${what}`);
  t.diagnostic(`${what}: ${width[0]} of ${width[1]} pixels wide, no violation`);
};
