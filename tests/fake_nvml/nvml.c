/* A libnvidia-ml.so that answers from a text file: any NVIDIA card for the tests, through the real wrapper.
 *
 * The file is named by FAKE_NVML. One statement a line:
 *   driver TEXT · cuda NUMBER · init CODE
 *   hang FUNCTION [FILE]     never answers, after writing its process id to FILE · abort FUNCTION
 *   device · slice           begins a card, a MIG slice of the last card; what follows is its
 *   name TEXT · uuid TEXT · bus TEXT · pci NUMBER · memory TOTAL FREE USED · capability MAJOR MINOR
 *   pcie GENERATION WIDTH GENERATION_MAX WIDTH_MAX · power MILLIWATTS · temperature CELSIUS · throttle BITS · ecc 0|1 · mig 0|1
 *   compute PID BYTES · graphics PID BYTES · busy PERCENT · works PID PERCENT
 *   error FUNCTION CODE      of this card; FUNCTION is nvmlDeviceGetHandleByIndex_v2 for one that cannot be opened
 * Structures and codes are those of NVIDIA's nvml.h, as the crate nvml-wrapper-sys mirrors them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 16, TEXT = 96, NOT_FOUND = 6, TOO_SMALL = 7, INVALID = 2 };

typedef struct {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
} Process;

typedef struct {
    char function[TEXT];
    int code;
} Failure;

typedef struct Card {
    char name[TEXT], uuid[TEXT], bus[32];
    unsigned pci, pcie[4], power, temperature, ecc, mig;
    unsigned long long memory[3], throttle;
    int capability[2];
    Process compute[MOST], graphics[MOST], works[MOST];
    Failure failures[MOST];
    unsigned computes, graphicses, workers, busy, failed, slices;
    struct Card *slice[MOST];
} Card;

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char address[32];
} Pci;

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} Memory;

static struct {
    char driver[TEXT], hangs[TEXT], mark[512], aborts[TEXT];
    int cuda, init;
    Card *card[MOST];
    unsigned cards;
} machine;

static void text(char *into, size_t size, const char *from) { snprintf(into, size, "%s", from); }

static void statement(Card *card, const char *word, const char *rest) {
    char function[TEXT];
    int code;
    if (!strcmp(word, "driver")) text(machine.driver, TEXT, rest);
    else if (!strcmp(word, "cuda")) machine.cuda = atoi(rest);
    else if (!strcmp(word, "init")) machine.init = atoi(rest);
    else if (!strcmp(word, "hang")) sscanf(rest, "%95s %511[^\n]", machine.hangs, machine.mark);
    else if (!strcmp(word, "abort")) text(machine.aborts, TEXT, rest);
    else if (!card) abort();
    else if (!strcmp(word, "name")) text(card->name, TEXT, rest);
    else if (!strcmp(word, "uuid")) text(card->uuid, TEXT, rest);
    else if (!strcmp(word, "bus")) text(card->bus, sizeof card->bus, rest);
    else if (!strcmp(word, "pci")) card->pci = (unsigned)strtoul(rest, NULL, 0);
    else if (!strcmp(word, "memory")) sscanf(rest, "%llu %llu %llu", &card->memory[0], &card->memory[1], &card->memory[2]);
    else if (!strcmp(word, "capability")) sscanf(rest, "%d %d", &card->capability[0], &card->capability[1]);
    else if (!strcmp(word, "pcie")) sscanf(rest, "%u %u %u %u", &card->pcie[0], &card->pcie[1], &card->pcie[2], &card->pcie[3]);
    else if (!strcmp(word, "power")) card->power = (unsigned)strtoul(rest, NULL, 0);
    else if (!strcmp(word, "temperature")) card->temperature = (unsigned)strtoul(rest, NULL, 0);
    else if (!strcmp(word, "throttle")) card->throttle = strtoull(rest, NULL, 0);
    else if (!strcmp(word, "ecc")) card->ecc = (unsigned)atoi(rest);
    else if (!strcmp(word, "mig")) card->mig = (unsigned)atoi(rest);
    else if (!strcmp(word, "compute") && card->computes < MOST) {
        Process *process = &card->compute[card->computes++];
        sscanf(rest, "%u %llu", &process->pid, &process->bytes);
    } else if (!strcmp(word, "graphics") && card->graphicses < MOST) {
        Process *process = &card->graphics[card->graphicses++];
        sscanf(rest, "%u %llu", &process->pid, &process->bytes);
    } else if (!strcmp(word, "busy")) {
        card->busy = (unsigned)atoi(rest);
    } else if (!strcmp(word, "works") && card->workers < MOST) {
        Process *process = &card->works[card->workers++];
        sscanf(rest, "%u %llu", &process->pid, &process->bytes);
    } else if (!strcmp(word, "error") && card->failed < MOST && sscanf(rest, "%95s %d", function, &code) == 2) {
        Failure *failure = &card->failures[card->failed++];
        text(failure->function, TEXT, function);
        failure->code = code;
    } else abort();
}

static void read_machine(void) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[1024];
    Card *card = NULL;
    if (!file) abort();
    memset(&machine, 0, sizeof machine);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *rest = strchr(line, ' ');
        if (rest) *rest++ = 0;
        if (!strcmp(line, "device") && machine.cards < MOST) {
            card = machine.card[machine.cards++] = calloc(1, sizeof *card);
        } else if (!strcmp(line, "slice") && machine.cards) {
            Card *whole = machine.card[machine.cards - 1];
            if (whole->slices < MOST) card = whole->slice[whole->slices++] = calloc(1, sizeof *card);
        } else if (*line) statement(card, line, rest ? rest : "");
    }
    fclose(file);
}

/* What stands in the way of a call: 0 for nothing. */
static int check(const char *function, const Card *card) {
    if (!strcmp(machine.hangs, function)) {
        FILE *mark = *machine.mark ? fopen(machine.mark, "w") : NULL;
        if (mark) {
            fprintf(mark, "%d\n", (int)getpid());
            fclose(mark);
        }
        for (;;) pause();
    }
    if (!strcmp(machine.aborts, function)) abort();
    for (unsigned index = 0; card && index < card->failed; index++)
        if (!strcmp(card->failures[index].function, function)) return card->failures[index].code;
    return 0;
}

#define CHECK(card)                                  \
    do {                                             \
        int wrong = check(__func__, card);           \
        if (wrong) return wrong;                     \
    } while (0)

int nvmlInit_v2(void) {
    read_machine();
    CHECK(NULL);
    return machine.init;
}

int nvmlShutdown(void) { return 0; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    CHECK(NULL);
    text(version, length, machine.driver);
    return 0;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    CHECK(NULL);
    *version = machine.cuda;
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    CHECK(NULL);
    *count = machine.cards;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Card **card) {
    if (index >= machine.cards) return INVALID;
    CHECK(machine.card[index]);
    *card = machine.card[index];
    return 0;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Card **card) {
    for (unsigned i = 0; i < machine.cards; i++) {
        Card *whole = machine.card[i];
        if (!strcmp(whole->uuid, uuid)) return *card = whole, 0;
        for (unsigned j = 0; j < whole->slices; j++)
            if (!strcmp(whole->slice[j]->uuid, uuid)) return *card = whole->slice[j], 0;
    }
    return NOT_FOUND;
}

/* Domains are of four or eight digits. */
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, Card **card) {
    const char *wanted = strchr(bus, ':');
    for (unsigned i = 0; i < machine.cards; i++) {
        const char *own = strchr(machine.card[i]->bus, ':');
        if (wanted && own && !strcmp(own, wanted)) return *card = machine.card[i], 0;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetName(const Card *card, char *name, unsigned length) {
    CHECK(card);
    text(name, length, card->name);
    return 0;
}

int nvmlDeviceGetUUID(const Card *card, char *uuid, unsigned length) {
    CHECK(card);
    text(uuid, length, card->uuid);
    return 0;
}

int nvmlDeviceGetPciInfo_v3(const Card *card, Pci *pci) {
    CHECK(card);
    memset(pci, 0, sizeof *pci);
    sscanf(card->bus, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    pci->id = card->pci;
    text(pci->address, sizeof pci->address, card->bus);
    return 0;
}

int nvmlDeviceGetMemoryInfo_v2(const Card *card, Memory *memory) {
    CHECK(card);
    if (memory->version != (sizeof *memory | 2U << 24)) return 25;
    memory->total = card->memory[0];
    memory->free = card->memory[1];
    memory->used = card->memory[2];
    memory->reserved = 0;
    return 0;
}

int nvmlDeviceGetCudaComputeCapability(const Card *card, int *major, int *minor) {
    CHECK(card);
    *major = card->capability[0];
    *minor = card->capability[1];
    return 0;
}

#define NUMBER(function, type, field)                \
    int function(const Card *card, type *value) {    \
        CHECK(card);                                 \
        *value = card->field;                        \
        return 0;                                    \
    }

NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, pcie[0])
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, pcie[1])
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, pcie[2])
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, pcie[3])
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, power)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, throttle)

int nvmlDeviceGetTemperature(const Card *card, int sensor, unsigned *celsius) {
    CHECK(card);
    if (sensor != 0) return INVALID;
    *celsius = card->temperature;
    return 0;
}

int nvmlDeviceGetEccMode(const Card *card, unsigned *current, unsigned *pending) {
    CHECK(card);
    *current = *pending = card->ecc;
    return 0;
}

int nvmlDeviceGetMigMode(const Card *card, unsigned *current, unsigned *pending) {
    CHECK(card);
    *current = *pending = card->mig;
    return 0;
}

int nvmlDeviceGetMaxMigDeviceCount(const Card *card, unsigned *count) {
    CHECK(card);
    /* A card has seven places, however many are filled. */
    *count = card->mig ? 7 : 0;
    return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(const Card *card, unsigned index, Card **slice) {
    CHECK(card);
    if (index >= card->slices) return NOT_FOUND;
    *slice = card->slice[index];
    return 0;
}

static int processes(const Process *from, unsigned have, unsigned *count, Process *into) {
    unsigned room = *count;
    *count = have;
    if (room < have) return TOO_SMALL;
    for (unsigned index = 0; index < have; index++) {
        into[index] = from[index];
        into[index].gpu_instance = into[index].compute_instance = 0xffffffff;
    }
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(const Card *card, unsigned *count, Process *into) {
    CHECK(card);
    return processes(card->compute, card->computes, count, into);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(const Card *card, unsigned *count, Process *into) {
    CHECK(card);
    return processes(card->graphics, card->graphicses, count, into);
}

int nvmlDeviceGetUtilizationRates(const Card *card, unsigned percent[2]) {
    CHECK(card);
    percent[0] = card->busy;
    percent[1] = 0;
    return 0;
}

typedef struct {
    unsigned pid;
    unsigned long long moment;
    unsigned multiprocessors, memory, encoder, decoder;
} Sample;

int nvmlDeviceGetProcessUtilization(const Card *card, Sample *into, unsigned *count, unsigned long long since) {
    CHECK(card);
    unsigned room = *count;
    *count = card->workers;
    if (!card->workers) return NOT_FOUND;
    if (!into || room < card->workers) return TOO_SMALL;
    for (unsigned index = 0; index < card->workers; index++)
        into[index] = (Sample){card->works[index].pid, since + 1, (unsigned)card->works[index].bytes, 0, 0, 0};
    return 0;
}
