// What there is to buy. In a module of its own: `warren build` puts all modules of a worker together.

export const CATALOGUE = {
    "POSTER-ALIEN": { title: "Poster “Alien”, 60 × 90 cm", cents: 1490 },
    "POSTER-BRAZIL": { title: "Poster “Brazil”, 60 × 90 cm", cents: 1290 },
    "MUG-NOSTROMO": { title: "Mug “Nostromo crew”", cents: 950 },
};
