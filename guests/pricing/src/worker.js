// Prices an order: looks up each item, takes off what many of a kind earn, adds the tax. What cannot be
// sold is rejected, so that whoever sent the order hears of it.
//
// All money is in cents: JavaScript's numbers are doubles, which have no 0.1.

import { worker, forward, config, metrics, Reject } from "warren";
import { CATALOGUE } from "./catalogue.js";

// From this many of one kind on, the line is cheaper.
const MANY = 10;
const PERCENT_OFF_FOR_MANY = 5;

export const { descriptor, handler } = worker({
    type: "PRICING",
    summary: "Prices an order",
    version: "1.0.0",

    handle(job) {
        const order = job.json({ items: Array });
        if (order.items.length === 0) throw new Reject("the order has no items");
        const lines = order.items.map(priced);
        const netCents = lines.reduce((sum, line) => sum + line.cents, 0);
        const vatPercent = config.number("vat_percent") ?? 19;
        const vatCents = Math.round((netCents * vatPercent) / 100);
        metrics.count("priced_total");
        metrics.observe("price", (netCents + vatCents) / 100);
        return forward({ ...order, lines, netCents, vatPercent, vatCents, totalCents: netCents + vatCents });
    },
});

function priced(item, index) {
    const { sku, quantity = 1 } = item ?? {};
    const product = Object.hasOwn(CATALOGUE, sku) ? CATALOGUE[sku] : undefined;
    if (product === undefined) throw new Reject(`item ${index + 1}: there is no product \`${sku}\``);
    if (!Number.isInteger(quantity) || quantity < 1 || quantity > 1000) {
        throw new Reject(`item ${index + 1}: ${quantity} of \`${sku}\` cannot be ordered`);
    }
    const full = product.cents * quantity;
    const off = quantity >= MANY ? Math.round((full * PERCENT_OFF_FOR_MANY) / 100) : 0;
    return { sku, title: product.title, quantity, cents: full - off };
}
