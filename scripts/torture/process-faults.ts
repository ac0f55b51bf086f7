/**
 * What torture does to the processes of a pair under load. Moments are drawn: so many writes acknowledged, so many
 * milliseconds. Pauses are moments to strike at, nothing relies on their length.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { expectStopped, handOver, moment, perhapsKillAgain, promoteEither } from './steps.ts';
import type { Fault, Torture } from './steps.ts';

export const processFaults: readonly Fault[] = [
  primaryLost,
  primaryLost,
  primaryLost,
  primaryFrozen,
  primaryKilledDuringResync,
  secondaryLost,
  secondaryFrozen,
  bothKilled,
];

/** The Primary is killed or stopped; the survivor is promoted by force, and the other returns, at times in two attempts. */
async function primaryLost(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary } = pair;
  const first = load.start(await primary.attach());
  await first.more(moment(torture));
  const how = draw(4) === 0 ? 'stopped' : 'killed';
  await (how === 'killed' ? primary.process.kill9() : primary.process.stop());
  await first.ended;
  await secondary.untilAlone();
  if (primary.hadLeftPeerBehind()) {
    await primary.process.start();
    await pair.mirroring();
    await promoteEither(torture);
    return `${primary.name} (Primary) ${how} when it had gone on alone: back without takeover`;
  }
  await secondary.order('promote', { force: true });
  pair.primary = secondary;
  const client = await secondary.attach();
  await torture.verify(client);
  const second = load.start(client);
  await second.more(moment(torture));
  await primary.process.start();
  const again = await perhapsKillAgain(torture, primary);
  await second.more(moment(torture));
  await second.stop();
  await pair.mirroring();
  await secondary.detach(client);
  return `${primary.name} (Primary) ${how}, ${secondary.name} promoted by force${again}`;
}

/** The Primary stands still while the survivor is promoted, and wakes up to a world that has gone on. */
async function primaryFrozen(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary } = pair;
  const stale = await primary.attach();
  const first = load.start(stale);
  await first.more(moment(torture));
  primary.process.sigstop();
  await secondary.untilAlone();
  if (primary.hadLeftPeerBehind()) {
    primary.process.sigcont();
    await first.stop();
    await pair.mirroring();
    await primary.detach(stale);
    await handOver(torture);
    return `${primary.name} (Primary) frozen when it had gone on alone: no takeover`;
  }
  await secondary.order('promote', { force: true });
  pair.primary = secondary;
  // Either its clients have gone, with requests left in its socket, or they wait and get what it answers.
  const gone = draw(2) === 0;
  if (gone) stale.destroy();
  const client = await secondary.attach();
  if (gone) {
    await first.ended;
    await torture.verify(client);
  }
  const second = load.start(client);
  await second.more(moment(torture));
  primary.process.sigcont();
  await second.more(moment(torture));
  await first.ended;
  await second.stop();
  await pair.mirroring();
  await secondary.detach(client);
  return `${primary.name} (Primary) frozen, ${secondary.name} promoted by force, ${primary.name} thawed`;
}

/** The only good copy dies while the other is being brought up to date: nobody else may take over. */
async function primaryKilledDuringResync(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary } = pair;
  const first = load.start(await primary.attach());
  await first.more(moment(torture));
  await secondary.process.kill9();
  await first.more(moment(torture));
  await secondary.process.start();
  await pause(draw(400));
  await primary.process.kill9();
  await first.ended;
  await pause(draw(200));
  await primary.process.start();
  await pair.mirroring();
  const promoted = await promoteEither(torture);
  return `${secondary.name} killed, ${primary.name} (Primary) killed on its return, ${promoted} promoted`;
}

/** The Secondary is killed or stopped and returns, at times in two attempts; the load goes on all the time. */
async function secondaryLost(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary } = pair;
  const client = await primary.attach();
  const phase = load.start(client);
  await phase.more(moment(torture));
  const kill = draw(2) === 0;
  await (kill ? secondary.process.kill9() : secondary.process.stop());
  await phase.more(moment(torture));
  await secondary.process.start();
  const again = await perhapsKillAgain(torture, secondary);
  await phase.more(moment(torture));
  await expectStopped(phase.stop());
  await pair.mirroring();
  await primary.detach(client);
  await handOver(torture);
  return `${secondary.name} (Secondary) ${kill ? 'killed' : 'stopped'}${again}, then handed over to ${pair.primary.name}`;
}

/** A stall of the Secondary, shorter or longer than its peer waits. */
async function secondaryFrozen(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const { primary, secondary } = pair;
  const client = await primary.attach();
  const phase = load.start(client);
  await phase.more(moment(torture));
  secondary.process.sigstop();
  const stallMs = draw(3000);
  await pause(stallMs);
  secondary.process.sigcont();
  await phase.more(moment(torture));
  await expectStopped(phase.stop());
  await pair.mirroring();
  await primary.detach(client);
  await handOver(torture);
  return `${secondary.name} (Secondary) frozen for ${stallMs} ms, then handed over to ${pair.primary.name}`;
}

async function bothKilled(torture: Torture): Promise<string> {
  const { pair, load, draw } = torture;
  const phase = load.start(await pair.primary.attach());
  await phase.more(moment(torture));
  const [one, other] = draw(2) === 0 ? [pair.primary, pair.secondary] : [pair.secondary, pair.primary];
  await one.process.kill9();
  await pause(draw(30));
  await other.process.kill9();
  await phase.ended;
  await one.process.start();
  await pause(draw(300));
  await other.process.start();
  await pair.mirroring();
  return `${one.name} and ${other.name} killed, ${await promoteEither(torture)} promoted`;
}
