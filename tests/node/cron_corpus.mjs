// Writes tests/unit/cron_corpus.json: what BullMQ's cron library makes of the expressions below.
//
//     node tests/node/cron_corpus.mjs > tests/unit/cron_corpus.json
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { CronExpressionParser } = require('cron-parser');

const EXPRESSIONS = [
  '* * * * *', '5 * * * *', '*/5 * * * *', '0-30/7 * * * *', '1,2,3,58 * * * *', '59 23 * * *', '0 0 * * *',
  '30 2 * * *', '30 1 * * *', '0 3 * * *', '0 */6 * * *', '0 9-17 * * 1-5', '0 9-17/2 * * 1-5', '15 10 * * 1',
  '15 10 * * 7', '15 10 * * 0', '0 0 1 * *', '0 0 15 * *', '0 0 31 * *', '0 0 29 2 *', '0 0 L * *', '0 0 1 1 *',
  '0 0 1 */3 *', '0 12 * 6-8 *', '0 12 * JUN,JUL *', '0 12 * * MON-FRI', '0 12 * * SAT,SUN', '0 0 13 * 5',
  '0 0 1,15 * 3', '0 0 * * 1#2', '0 0 * * 5L', '0 0 ? * 2', '0 0 1 * ?', '@hourly', '@daily', '@weekly', '@monthly',
  '@yearly', '* * * * * *', '*/15 * * * * *', '30 5 * * * *', '0 0 12 * * *', '10,40 */10 * * * *', '0 0 0 1 1 *',
  '0 30 2 * * 0', '59 59 23 31 12 *',
];
const STARTS = ['2026-01-30T22:58:31.500Z', '2026-03-28T20:00:00Z', '2026-10-24T20:00:00Z', '2028-02-28T23:00:00Z'];
const ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe'];
const COUNT = 12;

const corpus = [];
for (const tz of ZONES) {
  for (const start of STARTS) {
    for (const expression of EXPRESSIONS) {
      const parsed = CronExpressionParser.parse(expression, { currentDate: new Date(start), tz });
      const ticks = [];
      try {
        while (ticks.length < COUNT) ticks.push(parsed.next().getTime());
      } catch {
        // it gives up where the next day is too far: what it has said until then is compared
      }
      corpus.push([expression, tz, Date.parse(start), ticks]);
    }
  }
}
process.stdout.write(`[\n${corpus.map((each) => JSON.stringify(each)).join(',\n')}\n]\n`);
