/** What keeps a node or a pair from starting and the user can do something about: the message says it all. */
export class StartError extends Error {}
