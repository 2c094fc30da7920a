# The documents against the program. Included by the Makefile.

.PHONY: docs check-docs
docs: all ## write the README's table of settings anew
	/usr/bin/python3 docs/check $(BUILD)/freeze-agent --write

# The unit names the installed program, which need not be here: verified with the one just built.
check-docs: all ## do the documents and the unit fit the program?
	/usr/bin/python3 docs/check $(BUILD)/freeze-agent
	mandoc -T lint -W warning docs/freeze-agent.8
	@mkdir -p $(BUILD)/unit
	sed 's#/usr/sbin/freeze-agent#$(abspath $(BUILD))/freeze-agent#' deploy/freeze-agent.service \
	    > $(BUILD)/unit/freeze-agent.service
	systemd-analyze verify --man=no $(BUILD)/unit/freeze-agent.service
