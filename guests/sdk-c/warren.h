/* The SDK for workers in C: a thin layer over `worker.h`, which `warren build` makes of the contract and
 * which has everything: `warren_worker_sql_query`, `wasi_keyvalue_atomics_increment`, … Use it directly
 * for what is not here.
 *
 *     #include "warren.h"
 *
 *     static warren_end handle(const warren_job *job) {
 *         const char *name = warren_json_text(&job->data, "name");
 *         if (name == NULL) return warren_reject("there is no name");
 *         return warren_forward(warren_concat("{\"text\":", warren_json_quote(name), "}", NULL));
 *     }
 *
 *     WARREN_WORKER("GREETER", "0.1.0", "Greets by name", handle)
 *
 * Every text that a function here returns ends with a zero byte, and lives until the run ends: nothing
 * has to be freed. What is longer than memory allows ends the run.
 */
#ifndef WARREN_H
#define WARREN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker.h"

/* A value and its encoding: `content_type` and `body`, each with `ptr` and `len`. */
typedef warren_worker_types_payload_t warren_payload;

/* One unit of work: `id`, `sender`, `route`, `position`, `data`. */
typedef warren_worker_types_job_t warren_job;

/* How a run ends; made by one of the functions below. */
typedef struct {
    bool has_succeeded;
    warren_worker_types_outcome_t outcome;
    warren_worker_types_failure_t failure;
} warren_end;

/* Nothing more is to be done. */
warren_end warren_done(void);
/* Hands this JSON to the next stop of the job's route: at the last stop of a call it is the reply. */
warren_end warren_forward(const char *json);
/* Sends the work on to these stops, the last one NULL: `(const char *[]){"WB:*", NULL}`. */
warren_end warren_route(const char *const *stops, const warren_payload *data);
/* The job can never succeed: it becomes a dead letter, and the caller is told why. */
warren_end warren_reject(const char *reason);
/* The job may succeed later: the host runs it again, up to the worker's attempts. */
warren_end warren_retry(const char *reason);
/* As above, no sooner than after so many milliseconds. */
warren_end warren_retry_after(const char *reason, uint64_t milliseconds);

/* The member of a JSON object that is a text; NULL when there is none, or the data is no such object.
 * Members of members are not looked at. */
const char *warren_json_text(const warren_payload *data, const char *name);
/* The member of a JSON object that is a number. */
bool warren_json_number(const warren_payload *data, const char *name, double *number);
/* A text as JSON, with its quotation marks. */
const char *warren_json_quote(const char *text);
/* Texts one after the other, the last one NULL: a NULL before, such as a member that is not there, ends it. */
const char *warren_concat(const char *first, ...) __attribute__((sentinel));
/* A text of the binding, with a zero byte at its end. */
const char *warren_text(worker_string_t text);
/* A text for the binding, which does not copy it. */
worker_string_t warren_string(const char *text);
/* Memory until the run ends; not set to anything. */
void *warren_alloc(size_t size);

/* Sends JSON to a stop (`TYPE:*` or a worker id) when the run has succeeded. Returns NULL, or why it was
 * refused. */
const char *warren_send(const char *stop, const char *json) __attribute__((warn_unused_result));

/* What came of a call. */
typedef struct {
    /* The reply, as it was sent; NULL when there is none. */
    const char *reply;
    /* Without a reply: one of WARREN_WORKER_BUS_CALL_ERROR_…, and its text. */
    uint8_t error;
    const char *reason;
} warren_reply;

/* Sends JSON to a stop and waits for the reply; 0 milliseconds are the host's default. */
warren_reply warren_call(const char *stop, const char *json, uint64_t timeout_ms);
/* How a run ends whose call had no reply: what may go away by itself is tried again. */
warren_end warren_no_reply(warren_reply reply);

/* Writes a line to the host's log. */
void warren_info(const char *message);
void warren_warn(const char *message);
void warren_error(const char *message);

/* Adds to a counter of the worker's own, whose name ends with `_total`. */
void warren_count(const char *name, uint64_t by);

/* What WARREN_WORKER calls. */
void warren_describe(exports_warren_worker_descriptor_description_t *description, const char *type,
                     const char *version, const char *summary);
void warren_forget(void);

/* Makes the exports of a plugin. Once in each worker. */
#define WARREN_WORKER(type, version, summary, function)                                            \
    void exports_warren_worker_descriptor_describe(                                                \
        exports_warren_worker_descriptor_description_t *description) {                             \
        warren_describe(description, (type), (version), (summary));                                \
    }                                                                                              \
    bool exports_warren_worker_handler_handle(warren_worker_types_job_t *job,                      \
                                              warren_worker_types_outcome_t *outcome,              \
                                              warren_worker_types_failure_t *failure) {            \
        warren_end end = (function)(job);                                                          \
        warren_worker_types_job_free(job);                                                         \
        warren_forget();                                                                           \
        *outcome = end.outcome;                                                                    \
        *failure = end.failure;                                                                    \
        return end.has_succeeded;                                                                  \
    }

#endif
