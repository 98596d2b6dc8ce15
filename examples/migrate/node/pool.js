// Whose turn it is among the workers of one type. Each worker keeps a pool of its own from what it
// hears, and nothing makes the pools agree: they can drift apart, as in MicroServices.js.
export class Pool {
  constructor(id) {
    this.id = id;
    // A list; or whatever another worker has sent as one: in BSON it can only be a document, which
    // is why the entries are gone through by their keys.
    this.entries = [];
    // Until somebody else has the turn, a worker believes that it is next.
    this.isMyTurn = true;
  }

  // A newcomer comes last; the turn moves on by one.
  add(worker) {
    this.entries.push({ worker, isNext: false });
    this.advance();
  }

  // The entry that moves up gets the turn, and nobody hears that he has lost it. After the last
  // entry there is none: the turn moves on instead.
  remove(id) {
    for (const index in this.entries) {
      if (this.entries[index].worker.id !== id) continue;
      this.entries.splice(index, 1);
      if (index < this.entries.length) this.give(index);
      else this.advance();
      return;
    }
  }

  // Another worker's view replaces this one. Whether it is our turn stays as it was.
  replace(entries) {
    this.entries = entries;
  }

  // Only the first of the pool tells a newcomer who else is there.
  isFirst() {
    return this.entries[0].worker.id === this.id;
  }

  give(turn) {
    for (const index in this.entries) this.entries[index].isNext = index === turn;
    if (this.entries[turn].worker.id === this.id) this.isMyTurn = true;
  }

  advance() {
    if (this.entries.length === 1) {
      this.entries[0].isNext = true;
      return;
    }
    for (const index in this.entries) {
      if (!this.entries[index].isNext) continue;
      const after = Number(index) + 1;
      const next = this.entries[after >= this.entries.length ? 0 : after];
      this.entries[index].isNext = false;
      next.isNext = true;
      this.isMyTurn = next.worker.id === this.id;
      return;
    }
  }
}
