/* Makes the label of a parcel: the id of the order as a barcode that a scanner reads (Code 128, ISO/IEC
 * 15417, code set B), drawn as SVG. The order goes on with the label in it. */

#include <stdio.h>
#include <string.h>

#include "warren.h"

/* Each symbol: the widths of three bars and three gaps, by turns, in modules. The last one is STOP. */
static const char *const SYMBOLS[] = {
    "212222", "222122", "222221", "121223", "121322", "131222", "122213", "122312", "132212", "221213",
    "221312", "231212", "112232", "122132", "122231", "113222", "123122", "123221", "223211", "221132",
    "221231", "213212", "223112", "312131", "311222", "321122", "321221", "312212", "322112", "322211",
    "212123", "212321", "232121", "111323", "131123", "131321", "112313", "132113", "132311", "211313",
    "231113", "231311", "112133", "112331", "132131", "113123", "113321", "133121", "313121", "211331",
    "231131", "213113", "213311", "213131", "311123", "311321", "331121", "312113", "312311", "332111",
    "314111", "221411", "431111", "111224", "111422", "121124", "121421", "141122", "141221", "112214",
    "112412", "122114", "122411", "142112", "142211", "241211", "221114", "413111", "241112", "134111",
    "111242", "121142", "121241", "114212", "124112", "124211", "411212", "421112", "421211", "212141",
    "214121", "412121", "111143", "111341", "131141", "114113", "114311", "411113", "411311", "113141",
    "114131", "311141", "411131", "211412", "211214", "211232", "2331112",
};

enum {
    START_B = 104,
    STOP = 106,
    /* The checksum is modulo this. */
    MODULUS = 103,
    MAX_CHARACTERS = 64,
    /* The gap beside the bars, in modules. */
    QUIET = 10,
    HEIGHT = 60,
    /* `M1234 0v60h4v-60z`, for each of the bars: three of a symbol, four of STOP. */
    MAX_BYTES_OF_BAR = 24,
    MAX_BARS = (MAX_CHARACTERS + 2) * 3 + 4,
};

/* What is drawn so far. */
typedef struct {
    char path[MAX_BARS * MAX_BYTES_OF_BAR];
    size_t length;
    int x;
} drawing;

static void draw(drawing *to, int symbol) {
    for (const char *width = SYMBOLS[symbol]; *width != '\0'; width++) {
        int modules = *width - '0';
        /* Bars are at even places, gaps at odd ones. */
        if ((width - SYMBOLS[symbol]) % 2 == 0) {
            size_t room = sizeof to->path - to->length;
            to->length += (size_t)snprintf(to->path + to->length, room, "M%d 0v%dh%dv-%dz", to->x,
                                           HEIGHT, modules, HEIGHT);
        }
        to->x += modules;
    }
}

static warren_end handle(const warren_job *job) {
    const char *id = warren_json_text(&job->data, "id");
    if (id == NULL) return warren_reject("the order has no `id`");
    size_t n = strlen(id);
    if (n == 0 || n > MAX_CHARACTERS) return warren_reject("the `id` has no 1 to 64 characters");

    drawing *bars = warren_alloc(sizeof *bars);
    bars->length = 0;
    bars->x = QUIET;
    draw(bars, START_B);
    int sum = START_B;
    for (size_t i = 0; i < n; i++) {
        if (id[i] < ' ' || id[i] > '~') return warren_reject("the `id` is not of ASCII characters");
        int value = id[i] - ' ';
        sum += value * (int)(i + 1);
        draw(bars, value);
    }
    draw(bars, sum % MODULUS);
    draw(bars, STOP);

    char size[96], check[32];
    snprintf(size, sizeof size, "viewBox='0 0 %d %d'", bars->x + QUIET, HEIGHT);
    snprintf(check, sizeof check, "%d", sum % MODULUS);
    const char *svg = warren_concat("<svg xmlns='http://www.w3.org/2000/svg' ", size, "><path d='",
                                    bars->path, "'/></svg>", NULL);
    warren_count("labels_total", 1);

    /* The order as it came, with one member more: its text ends with a brace. */
    const char *order = warren_text((worker_string_t){job->data.body.ptr, job->data.body.len});
    const char *end = strrchr(order, '}');
    if (end == NULL) return warren_reject("the order is not an object");
    char *begin = warren_alloc((size_t)(end - order) + 1);
    memcpy(begin, order, (size_t)(end - order));
    begin[end - order] = '\0';
    return warren_forward(warren_concat(begin, ",\"label\":{\"checksum\":", check, ",\"svg\":",
                                        warren_json_quote(svg), "}}", NULL));
}

WARREN_WORKER("LABEL", "1.0.0", "Makes the labels of parcels", handle)
