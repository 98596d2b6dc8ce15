// Greets by name: `{"name": "Ripley"}` is answered with `{"text": "Hello, Ripley!"}`.

import { worker, forward, log, metrics, Reject, type Job, type Outcome } from "warren";

interface Greeting {
    text: string;
}

function greet(name: string): Greeting {
    if (name === "") throw new Reject("there is nobody to greet");
    return { text: `Hello, ${name}!` };
}

export const { descriptor, handler } = worker({
    type: "{{type}}",
    summary: "Greets by name",
    version: "0.1.0",

    handle(job: Job): Outcome {
        // Data of another shape is rejected, with the field that is wrong.
        const { name } = job.json({ name: String });
        const greeting = greet(name);
        metrics.count("greetings_total");
        log.info(`greeting ${name}`);
        return forward(greeting);
    },
});
