/**
 * One replica of a pair as a process, with nothing around it: core, driver, metadata thread, backing file and link. It does
 * what it is told on standard input, one JSON order a line, and answers on standard output when it is done.
 */
import { createInterface } from 'node:readline';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { parseReplicaPlace, startReplica } from './replica.ts';
import { sayLine } from './say-line.ts';

const command = Type.Union([
  Type.Object({ kind: Type.Literal('promote'), force: Type.Boolean(), dryRun: Type.Boolean() }),
  Type.Object({ kind: Type.Literal('demote'), force: Type.Boolean(), dryRun: Type.Boolean() }),
  Type.Object({ kind: Type.Literal('detach'), force: Type.Boolean() }),
  Type.Object({ kind: Type.Literal('attach') }),
]);
const order = Type.Union([
  Type.Object({ order: Type.Literal('command'), command }),
  Type.Object({ order: Type.Literal('write'), block: Type.Integer(), version: Type.Integer() }),
  Type.Object({ order: Type.Literal('flush') }),
  Type.Object({ order: Type.Literal('stop') }),
]);
export type ReplicaOrder = Type.Static<typeof order>;

const checkedOrder = Compile(order);

const replica = await startReplica(parseReplicaPlace(process.argv.slice(2)));
sayLine('started');
for await (const line of createInterface({ input: process.stdin })) {
  const value: unknown = JSON.parse(line);
  if (!checkedOrder.Check(value)) throw new Error(`not an order: ${line}`);
  switch (value.order) {
    case 'command': {
      const result = await replica.node.command(value.command);
      sayLine(result.ok ? 'done' : `refused: ${result.refusal.reason}`);
      break;
    }
    case 'write':
      await replica.write(value.block, value.version);
      sayLine('done');
      break;
    case 'flush':
      await replica.flush();
      sayLine('done');
      break;
    case 'stop':
      await replica.node.stop();
      sayLine('done');
      process.exit(0);
  }
}
