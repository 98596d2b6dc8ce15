// Greets by name: `{"name": "Ripley"}` is answered with `{"text": "Hello, Ripley!"}`.

import { worker, forward, log, metrics, Reject } from "warren";

export const { descriptor, handler } = worker({
    type: "{{type}}",
    summary: "Greets by name",
    version: "0.1.0",

    handle(job) {
        // Data of another shape is rejected, with the field that is wrong.
        const { name } = job.json({ name: String });
        if (name === "") throw new Reject("there is nobody to greet");
        metrics.count("greetings_total");
        log.info(`greeting ${name}`);
        return forward({ text: `Hello, ${name}!` });
    },
});
