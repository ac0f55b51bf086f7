/** What is measured, row by row, and what is aimed at: the work fio does, and the ratio that our mirror should reach. */

export const contenderNames = ['mirrored', 'unmirrored', 'quorum', 'single', 'gluster'] as const;
export type ContenderName = (typeof contenderNames)[number];

/** How tables and the chart call them. */
export const labels: Readonly<Record<ContenderName, string>> = {
  mirrored: 'Lockstep, mirrored',
  unmirrored: 'Lockstep, one copy',
  quorum: 'qemu quorum of two',
  single: 'qemu, one copy',
  gluster: 'GlusterFS replica 2',
};

export interface Goal {
  readonly against: ContenderName;
  /** Rate of our mirror divided by theirs. */
  readonly atLeast: number;
}

export interface Row {
  readonly name: string;
  readonly title: string;
  /** fio's word. */
  readonly work: 'randwrite' | 'write' | 'randread' | 'read';
  readonly blockBytes: number;
  readonly depth: number;
  /** With a niced busy loop per processor: without one, queue 1 measures how fast a sleeping processor wakes. */
  readonly awake: boolean;
  readonly medium: 'memory' | 'disk';
  /** A flush after each write. */
  readonly flushEach: boolean;
  readonly goals: readonly Goal[];
}

const KiB = 1024;
const MiB = 1024 * KiB;
const memory = { awake: false, medium: 'memory', flushEach: false } as const;

/** Mirroring may cost 40 % of the rate without it. */
const mirroringCost: Goal = { against: 'unmirrored', atLeast: 0.6 };

export const rows: readonly Row[] = [
  {
    ...memory,
    name: 'write-4k-q1',
    title: '4k random write, queue 1',
    work: 'randwrite',
    blockBytes: 4 * KiB,
    depth: 1,
    goals: [{ against: 'quorum', atLeast: 1.5 }],
  },
  {
    ...memory,
    name: 'write-4k-q1-awake',
    title: '4k random write, queue 1, awake',
    work: 'randwrite',
    blockBytes: 4 * KiB,
    depth: 1,
    awake: true,
    goals: [{ against: 'quorum', atLeast: 1.5 }],
  },
  {
    ...memory,
    name: 'write-4k-q32',
    title: '4k random write, queue 32',
    work: 'randwrite',
    blockBytes: 4 * KiB,
    depth: 32,
    goals: [{ against: 'quorum', atLeast: 5 }, { against: 'single', atLeast: 1.3 }, mirroringCost],
  },
  {
    ...memory,
    name: 'write-64k-q8',
    title: '64k random write, queue 8',
    work: 'randwrite',
    blockBytes: 64 * KiB,
    depth: 8,
    goals: [{ against: 'quorum', atLeast: 3 }],
  },
  {
    ...memory,
    name: 'write-1m-q4',
    title: '1 MiB sequential write, queue 4',
    work: 'write',
    blockBytes: MiB,
    depth: 4,
    goals: [
      { against: 'quorum', atLeast: 2.5 },
      { against: 'single', atLeast: 0.9 },
    ],
  },
  {
    ...memory,
    name: 'read-4k-q32',
    title: '4k random read, queue 32',
    work: 'randread',
    blockBytes: 4 * KiB,
    depth: 32,
    goals: [{ against: 'single', atLeast: 2.5 }],
  },
  {
    ...memory,
    name: 'read-1m-q4',
    title: '1 MiB sequential read, queue 4',
    work: 'read',
    blockBytes: MiB,
    depth: 4,
    goals: [{ against: 'single', atLeast: 1.5 }],
  },
  {
    name: 'flush-4k-q1',
    title: '4k random write + flush each, queue 1, on disk',
    work: 'randwrite',
    blockBytes: 4 * KiB,
    depth: 1,
    awake: false,
    medium: 'disk',
    flushEach: true,
    goals: [{ against: 'quorum', atLeast: 1 }],
  },
];
