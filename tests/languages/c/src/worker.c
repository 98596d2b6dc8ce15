/* Fails as a job says: `{"do": "<word>"}`. The words are those of the table in guests/README.md. */

#include <stdlib.h>
#include <string.h>

#include "warren.h"

/* Set by nobody, which the compiler does not know. */
static volatile int is_enough;

static int deeper(int n) {
    volatile char frame[256];
    frame[n % 256] = (char)n;
    return is_enough ? n : deeper(n + 1) + frame[0];
}

static warren_end handle(const warren_job *job) {
    const char *deed = warren_json_text(&job->data, "do");
    if (deed == NULL) return warren_reject("there is nothing to do");
    if (strcmp(deed, "reply") == 0) return warren_forward("{\"text\":\"done\"}");
    if (strcmp(deed, "reject") == 0) return warren_reject("it says no");
    if (strcmp(deed, "retry") == 0) return warren_retry_after("not yet", 10);
    if (strcmp(deed, "exception") == 0) abort();
    if (strcmp(deed, "memory") == 0) {
        for (;;) memset(warren_alloc(1 << 20), 1, 1 << 20);
    }
    if (strcmp(deed, "recursion") == 0) {
        return deeper(0) == 0 ? warren_done() : warren_reject("it has an end");
    }
    if (strcmp(deed, "loop") == 0) {
        for (volatile int turns = 0;; turns++) {}
    }
    if (strcmp(deed, "exit") == 0) exit(3);
    if (strcmp(deed, "call") == 0) {
        warren_reply reply = warren_call("NOBODY:*", "{}", 0);
        return reply.reply == NULL ? warren_no_reply(reply) : warren_forward(reply.reply);
    }
    if (strcmp(deed, "send") == 0) {
        const char *refused = warren_send("not a stop", "{}");
        return refused == NULL ? warren_done() : warren_reject(refused);
    }
    if (strcmp(deed, "sql") == 0) {
        worker_string_t statement = warren_string("SELECT FROM");
        warren_worker_sql_list_value_t none = {NULL, 0};
        warren_worker_sql_rows_t rows;
        warren_worker_sql_error_t error;
        if (warren_worker_sql_query(&statement, &none, &rows, &error)) return warren_done();
        return warren_reject(warren_text(error.val.invalid));
    }
    if (strcmp(deed, "data") == 0) {
        const char *missing = warren_json_text(&job->data, "missing");
        return missing == NULL ? warren_reject("`missing` is missing") : warren_forward(missing);
    }
    if (strcmp(deed, "size") == 0) {
        char *text = warren_alloc(200 * 1024 + 1);
        memset(text, 'x', 200 * 1024);
        text[200 * 1024] = '\0';
        return warren_forward(warren_json_quote(text));
    }
    if (strcmp(deed, "route") == 0) {
        return warren_route((const char *[]){"not a stop", NULL}, &job->data);
    }
    return warren_reject("there is no such deed");
}

WARREN_WORKER("LANG-C", "0.1.0", "Fails as it is told, in C", handle)
