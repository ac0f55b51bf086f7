/**
 * What torture does to the link of a pair under load. While both nodes live, a client of the Primary sees no error,
 * whatever the network does, unless the other node was promoted by force; then what has to be kept is exact:
 *
 * - Nobody wrote at the old Primary meanwhile, or it was told to suspend I/O: it steps down, and nothing is lost.
 * - It wrote on: a split brain, said by both. An operator discards one side; what only that side acknowledged is gone,
 *   to the last block, and everything else is there.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { patienceMs, within } from '../../test/support/node-process.ts';
import { StampedLoad } from '../../test/support/stamped-load.ts';
import type { Silenced } from './link.ts';
import { mebibyte } from './pair.ts';
import { expectStopped, handOver, moment } from './steps.ts';
import type { Fault, Torture } from './steps.ts';

export const linkFaults: readonly Fault[] = [
  linkCut,
  linkCutAgainAndAgain,
  linkSilenced,
  byteGarbled,
  takeoverFromIdlePrimary,
  takeoverFromSuspendedPrimary,
  writtenApart,
];

/** The cable is pulled and plugged in again; the Primary goes on alone meanwhile. */
async function linkCut(torture: Torture): Promise<string> {
  const { pair, load } = torture;
  const { primary, link } = pair;
  const client = await primary.attach();
  const phase = load.start(client);
  await phase.more(moment(torture));
  link.cut();
  await phase.more(moment(torture));
  link.heal();
  await phase.more(moment(torture));
  await expectStopped(phase.stop());
  await pair.mirroring();
  await primary.detach(client);
  await handOver(torture);
  return `link cut, then handed over to ${pair.primary.name}`;
}

/** It is cut again before long: during a handshake, the exchange of bitmaps, or the resync. */
async function linkCutAgainAndAgain(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary, link } = pair;
  const client = await primary.attach();
  const phase = load.start(client);
  await phase.more(moment(torture));
  const times = 2 + draw(4);
  let midResync = 0;
  for (let time = 0; time < times; time++) {
    link.cut();
    if (draw(3) === 0) await pause(draw(100));
    else await phase.more(moment(torture));
    link.heal();
    await within(patienceMs, 'bytes on the link', link.said(primary.name, draw(10 ** (2 + draw(5)))));
    const isLast = time === times - 1;
    if (!isLast && (await secondary.status()).diskState === 'Inconsistent') midResync++;
  }
  await phase.more(moment(torture));
  await expectStopped(phase.stop());
  await pair.mirroring();
  await primary.detach(client);
  await handOver(torture);
  return `link cut ${times} times, ${midResync} resyncs interrupted, then handed over to ${pair.primary.name}`;
}

/** Half-open: one of them, or neither, hears the other, and no connection ends. */
async function linkSilenced(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, link } = pair;
  const client = await primary.attach();
  const phase = load.start(client);
  await phase.more(moment(torture));
  const who = silenced(torture);
  const newToo = draw(2) === 0;
  const dialled = link.dialled();
  link.silence(who, newToo);
  const long = draw(2) === 0;
  if (long) {
    // A new connection that works is made as soon as the loss of the old one is noticed.
    if (newToo) await Promise.all(pair.nodes.map((node) => node.untilAlone()));
    else await within(patienceMs, 'a new connection', dialled);
    // Else the Primary asks in vain for as long as it may before it goes on alone.
    if (newToo && draw(3) !== 0) link.cut();
    await phase.more(moment(torture));
  } else {
    await pause(draw(1000));
  }
  link.heal();
  await phase.more(moment(torture));
  await expectStopped(phase.stop());
  await pair.mirroring();
  await primary.detach(client);
  await handOver(torture);
  const how = `${newToo ? 'on new connections too, ' : ''}${long ? 'until noticed' : 'for a moment'}`;
  return `${who === 'both' ? 'nothing' : `nothing from ${who}`} got through (${how}), then handed over to ${pair.primary.name}`;
}

/** One bit is flipped on the way: that session ends, and nothing else does. */
async function byteGarbled(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary, link } = pair;
  const client = await primary.attach();
  const phase = load.start(client);
  await phase.more(moment(torture));
  const [speaker, hearer] = draw(2) === 0 ? [primary, secondary] : [secondary, primary];
  const marks = pair.nodes.map(({ process }) => process.outputMark);
  const dialled = within(patienceMs, 'a new session', link.dialled());
  link.garble(speaker.name, draw(10 ** (1 + draw(5))));
  await dialled;
  await phase.more(moment(torture));
  await expectStopped(phase.stop());
  await pair.mirroring();
  for (const [index, node] of pair.nodes.entries()) {
    const said = node.process.outputSince(marks[index] ?? 0);
    const found = said.match(/connection lost \(ProtocolError\)/g)?.length ?? 0;
    // On a busy machine the session may have been lost before; then the bit was of another handshake.
    const due = node === hearer && !said.includes('connection lost (Timeout)') ? 1 : 0;
    if (found < due || found > (node === hearer ? 1 : 0))
      throw new Error(`${found} protocol errors at ${node.name}, where ${speaker.name} was garbled`);
  }
  await primary.detach(client);
  await handOver(torture);
  return `a bit of ${speaker.name} garbled, the session dropped, then handed over to ${pair.primary.name}`;
}

/** The old Primary is out of reach and has a client that writes nothing: it steps down when it hears. */
async function takeoverFromIdlePrimary(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary, link } = pair;
  const stale = await primary.attach();
  const first = load.start(stale);
  await first.more(moment(torture));
  await expectStopped(first.stop());
  const how = draw(2) === 0 ? 'cut' : 'silenced';
  if (how === 'cut') link.cut();
  else link.silence('both', true);
  await secondary.untilAlone();
  await secondary.order('promote', { force: true });
  pair.primary = secondary;
  const client = await secondary.attach();
  await torture.verify(client);
  const second = load.start(client);
  await second.more(moment(torture));
  link.heal();
  await within(patienceMs, 'the superseded Primary to disconnect its client', stale.closed);
  await second.more(moment(torture));
  await expectStopped(second.stop());
  await pair.mirroring();
  await secondary.detach(client);
  return `link ${how} while nobody wrote, ${secondary.name} promoted by force, ${primary.name} stepped down`;
}

/** Told to suspend I/O without its peer, a Primary acknowledges nothing that a takeover could lose. */
async function takeoverFromSuspendedPrimary(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary, link } = pair;
  await pair.change({ onPeerLoss: 'suspend' });
  const stale = await primary.attach();
  const first = load.start(stale);
  await first.more(moment(torture));
  const how = draw(2) === 0 ? 'cut' : 'silenced';
  if (how === 'cut') link.cut();
  else link.silence(silenced(torture), true);
  await secondary.untilAlone();
  await secondary.order('promote', { force: true });
  pair.primary = secondary;
  // Either its client has gone, with requests left behind, or it waits and gets what the node answers.
  const gone = draw(2) === 0;
  if (gone) stale.destroy();
  const client = await secondary.attach();
  if (gone) {
    await first.ended;
    await torture.verify(client);
  }
  const second = load.start(client);
  await second.more(moment(torture));
  link.heal();
  await second.more(moment(torture));
  await within(patienceMs, 'the old client to be answered', first.ended);
  await expectStopped(second.stop());
  await pair.change({ onPeerLoss: 'continue' });
  await pair.mirroring();
  await secondary.detach(client);
  return `link ${how}, ${primary.name} (Primary) suspended its clients, ${secondary.name} promoted by force`;
}

/** Both take writes without each other: a split brain, settled by an operator in favour of one or the other. */
async function writtenApart(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary: old, secondary: fresh, link } = pair;
  const keepsOld = draw(2) === 0;
  const ofOld = await old.attach();
  const first = load.start(ofOld);
  await first.more(moment(torture));
  const atCut = load.snapshot();
  link.cut();
  // From the first of these on, acknowledged by the old Primary alone.
  await first.more(moment(torture));
  await fresh.untilAlone();
  await fresh.order('promote', { force: true });
  const ofFresh = await fresh.attach();
  let second;
  if (keepsOld) {
    const discarded = new StampedLoad({ sizeBytes: 16 * mebibyte, seed: draw(2 ** 31), queueDepth: 16 });
    second = discarded.start(ofFresh);
    await second.more(moment(torture));
    await expectStopped(second.stop());
  } else {
    await expectStopped(first.stop());
    load.giveUpSince(atCut);
    await torture.verify(ofFresh);
    second = load.start(ofFresh);
    await second.more(moment(torture));
  }
  link.heal();
  await Promise.all(pair.nodes.map((node) => node.waitFor((status) => status.splitBrain, 'split brain')));

  const [winner, loser] = keepsOld ? [old, fresh] : [fresh, old];
  const [kept, lost] = keepsOld ? [ofOld, ofFresh] : [ofFresh, ofOld];
  const running = keepsOld ? first : second;
  await running.more(moment(torture));
  await loser.detach(lost);
  await loser.order('demote');
  await loser.order('connect', { discardMyData: true });
  await winner.order('connect');
  pair.primary = winner;
  await Promise.all(pair.nodes.map((node) => node.waitFor((status) => !status.splitBrain, 'the decision')));
  await running.more(moment(torture));
  await pair.mirroring();
  await expectStopped(running.stop());
  await winner.detach(kept);
  return `link cut and both written: split brain, ${loser.name} discarded, ${winner.name} kept`;
}

function silenced({ draw }: Torture): Silenced {
  return (['alpha', 'beta', 'both'] as const)[draw(3)] ?? 'both';
}
