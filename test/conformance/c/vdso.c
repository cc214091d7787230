// The vDSO: where the auxiliary vector says it is, /proc/self/maps has it, and
// it is an ELF object that can be read.
#include "check.h"
#include <elf.h>
#include <sys/auxv.h>
int main(void)
{
	unsigned long at = getauxval(AT_SYSINFO_EHDR), start, end, last = 0;
	int found = 0, sorted = 1;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		sorted &= start >= last;
		last = end;
		if (!strstr(line, "[vdso]"))
			continue;
		found++;
		printf("%.4s\n", strchr(line, ' ') + 1);
		TRUE(start == at);
		TRUE(end > start && end % 4096 == 0 && end - start <= 16384);
		Elf64_Ehdr *h = (void *)start;
		TRUE(memcmp(h->e_ident, ELFMAG, SELFMAG) == 0);
		TRUE(h->e_type == ET_DYN);
		Elf64_Phdr *p = (void *)(start + h->e_phoff);
		for (int i = 0; i < h->e_phnum; i++)
			if (p[i].p_type == PT_LOAD)
				TRUE(start + p[i].p_vaddr + p[i].p_memsz <= end);
	}
	printf("%d\n", found);
	TRUE(sorted);
	return 0;
}
