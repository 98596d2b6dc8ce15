/* Greets by name: `{"name": "Ripley"}` is answered with `{"text": "Hello, Ripley!"}`. */

#include "warren.h"

static warren_end greet(const warren_job *job) {
    const char *name = warren_json_text(&job->data, "name");
    if (name == NULL) return warren_reject("the member `name` is missing, or no text");
    if (*name == 0) return warren_reject("there is nobody to greet");
    warren_count("greetings_total", 1);
    warren_info(warren_concat("greeting ", name, NULL));
    const char *text = warren_concat("Hello, ", name, "!", NULL);
    return warren_forward(warren_concat("{\"text\":", warren_json_quote(text), "}", NULL));
}

WARREN_WORKER("{{type}}", "0.1.0", "Greets by name", greet)
